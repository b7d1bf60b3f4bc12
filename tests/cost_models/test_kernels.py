"""Peak activation bytes by liveness."""

from hypothesis import given
from hypothesis import strategies as st

from cost_models.kernels import NETWORK_INPUT, Kernel, KernelGraph


def kernel(output_bytes: int, *reads: int) -> Kernel:
    return Kernel("conv", ("Conv",), 0, 0, output_bytes, 0, reads, (1,))


@st.composite
def graphs(draw: st.DrawFn) -> KernelGraph:
    count = draw(st.integers(1, 12))
    kernels = []
    for index in range(count):
        sources = st.integers(NETWORK_INPUT, index - 1)
        reads = draw(st.lists(sources, min_size=1, max_size=3, unique=True))
        kernels.append(kernel(draw(st.integers(1, 1000)), *reads))
    return KernelGraph(tuple(kernels), draw(st.integers(1, 1000)))


def peak_by_definition(graph: KernelGraph) -> int:
    """At each step, all tensors written so far that this or a later step reads, or that it wrote.

    A tensor that no step reads stays: it may be an output of the network.
    """
    peak = graph.input_bytes
    for step, current in enumerate(graph.kernels):
        alive = current.output_bytes
        for source in range(NETWORK_INPUT, step):
            readers = [i for i, k in enumerate(graph.kernels) if source in k.reads]
            if source == NETWORK_INPUT:
                size = graph.input_bytes
            else:
                size = graph.kernels[source].output_bytes
            alive += size if not readers or max(readers) >= step else 0
        peak = max(peak, alive)
    return peak


@given(graphs())
def test_the_peak_is_the_largest_sum_of_tensors_alive_at_one_step(graph: KernelGraph) -> None:
    assert graph.peak_activation_bytes == peak_by_definition(graph)


@given(graphs())
def test_the_peak_lies_between_the_largest_step_and_everything_at_once(graph: KernelGraph) -> None:
    everything = graph.input_bytes + sum(k.output_bytes for k in graph.kernels)

    assert max(k.output_bytes for k in graph.kernels) <= graph.peak_activation_bytes <= everything


def test_a_chain_keeps_two_tensors_alive() -> None:
    chain = KernelGraph((kernel(5, NETWORK_INPUT), kernel(7, 0), kernel(4, 1)), 3)

    assert chain.peak_activation_bytes == 5 + 7


def test_a_shortcut_keeps_its_tensor_alive_until_the_sum() -> None:
    block = KernelGraph((kernel(5, NETWORK_INPUT), kernel(7, 0), kernel(4, 1), kernel(5, 2, 0)), 3)

    assert block.peak_activation_bytes == 5 + 7 + 4
