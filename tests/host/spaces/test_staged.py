"""What spaces of stages share: how a person writes a candidate, and restriction."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.spaces.base import CandidateTextError, SpaceChoiceError, size
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from host.spaces.resnet_lite import ResNetLite

STAGED = [Mobile, ResNetLite, Conv1d]
EVERY_STAGED = pytest.mark.parametrize("kind", STAGED, ids=lambda kind: kind.name)


@EVERY_STAGED
def test_the_example_is_the_text_of_a_candidate(kind):
    space = kind()

    assert space.text(space.parse(kind.example)) == kind.example


@EVERY_STAGED
def test_spaces_between_the_words_do_not_matter(kind):
    space = kind()
    loose = "  " + kind.example.replace(" | ", "|").replace(" ", "   ") + "\n"

    assert space.parse(loose) == space.parse(kind.example)


@EVERY_STAGED
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_text_with_a_part_missing_or_twice_is_refused(kind, data):
    parts = kind.example.split(" | ")
    index = data.draw(st.integers(0, len(parts) - 1))
    changed = (
        parts[:index] + data.draw(st.sampled_from([[], [parts[index]] * 2])) + parts[index + 1 :]
    )

    with pytest.raises(CandidateTextError, match="write it as"):
        kind().parse(" | ".join(changed))


@EVERY_STAGED
def test_a_choice_that_is_not_offered_is_named(kind):
    item = kind.once[0]
    wrong = kind.example.replace(item.written(kind().values(kind().parse(kind.example))[item.name]),
                                 f"{item.prefix}7", 1)  # fmt: skip

    with pytest.raises(CandidateTextError, match=f"{item.name} must be one of"):
        kind().parse(wrong)


@EVERY_STAGED
def test_a_restriction_holds_in_every_stage(kind):
    name = kind.per_stage[0].name
    kept = kind.per_stage[0].choices[1:2]

    space = kind({name: kept})

    of_stages = [d for d in space.decisions if d.name.startswith(name) and d.name != name]
    assert [d.choices for d in of_stages] == [kept] * kind.stages
    assert size(kind()) == size(space) * len(kind.per_stage[0].choices) ** kind.stages


@EVERY_STAGED
def test_what_a_restriction_rules_out_is_no_candidate_any_more(kind):
    item = kind.once[1]
    chosen = kind().values(kind().parse(kind.example))[item.name]
    others = tuple(choice for choice in item.choices if choice != chosen)

    with pytest.raises(CandidateTextError, match=f"{item.name} must be one of"):
        kind({item.name: others}).parse(kind.example)


@EVERY_STAGED
def test_a_decision_of_another_space_is_refused_with_those_that_there_are(kind):
    with pytest.raises(SpaceChoiceError, match=f"no decision 'colour'; it has {kind.once[0].name}"):
        kind({"colour": (1,)})


@EVERY_STAGED
def test_a_restriction_to_nothing_is_refused(kind):
    with pytest.raises(SpaceChoiceError, match="must name some of"):
        kind({kind.once[0].name: ()})


def test_taking_a_choice_changes_it_in_every_stage_and_nothing_else():
    space = Mobile()
    plain = space.parse(
        "r64 w0.5 relu stem2 head320 | k3e3d2 | k5e6d1se | k3e3d1 | k3e3d1 | k3e3d1"
    )

    squeezed = space.taking(plain, "squeeze", True)
    swished = space.taking(plain, "activation", "hard_swish")

    assert space.text(squeezed) == (
        "r64 w0.5 relu stem2 head320 | k3e3d2se | k5e6d1se | k3e3d1se | k3e3d1se | k3e3d1se"
    )
    assert space.text(swished) == space.text(plain).replace("relu", "hard_swish")


def test_taking_what_is_not_left_is_refused():
    space = Mobile({"activation": ("relu",)})

    with pytest.raises(ValueError, match="not in tuple"):
        space.taking(space.parse(Mobile.example), "activation", "hard_swish")
