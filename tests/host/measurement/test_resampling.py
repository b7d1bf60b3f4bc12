"""The block bootstrap beside its definition, written out slowly."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from host.measurement import resampling
from host.measurement.resampling import quantile, quantile_draws

VALUES = st.floats(0.001, 10.0)


@given(st.lists(VALUES, min_size=1, max_size=300), st.floats(0.0, 1.0))
def test_a_quantile_is_the_one_of_numpy(values, level):
    assert quantile(np.array(values), level) == float(np.quantile(values, level))


@settings(max_examples=15)
@given(
    st.lists(st.lists(VALUES.map(lambda x: round(x, 1)), max_size=12), min_size=5, max_size=9),
    st.sampled_from([0.25, 0.5, 0.9]),
)
def test_the_draws_are_the_quantiles_of_resampled_blocks(blocks, level):
    blocks = [np.array(block) for block in blocks if block]
    if len(blocks) < 5:
        return  # fewer are cut into pieces first

    draws = quantile_draws(blocks, level)

    pooled = np.concatenate(blocks)
    counts = resampling._block_counts(len(blocks), 1)
    expected = []
    for row in counts[:100]:
        drawn = np.sort(
            np.concatenate([np.repeat(b, int(n)) for b, n in zip(blocks, row, strict=True)])
        )
        expected.append(drawn[max(int(np.ceil(level * len(drawn))) - 1, 0)])
    spread = resampling._spread(np.array(expected), quantile(pooled, level), len(blocks))
    np.testing.assert_array_equal(draws[:100], spread)
