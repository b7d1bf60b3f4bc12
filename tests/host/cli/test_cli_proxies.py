"""`genba proxies`: what ranks networks untrained, and what was published of it."""

from typing import Any, get_args

import pytest

from host.config import DEFAULT_ENSEMBLE, EnsembleName, ProxyName
from host.proxies.catalogue import PROXIES
from host.proxies.ensembles import ENSEMBLES, RECOMMENDED


def test_list_names_every_proxy_and_ensemble(said: Any) -> None:
    lines = said("proxies", "list").splitlines()

    firsts = [line.split()[0] for line in lines if line.strip()]
    assert set(PROXIES) | set(ENSEMBLES) <= set(firsts)
    assert any(line.startswith(f" {RECOMMENDED.name} *") for line in lines)


def test_list_says_cost_direction_labels_and_published_correlations(said: Any) -> None:
    lines = said("proxies", "list").splitlines()

    (ntk,) = (line for line in lines if line.startswith(" ntk_condition"))
    (naswot,) = (line for line in lines if line.startswith(" naswot"))
    (snip,) = (line for line in lines if line.startswith(" snip"))
    assert "per image" in ntk
    assert "lower" in ntk
    assert naswot.split()[2:5] == ["higher", "0.557", "0.743"]
    assert snip.split()[1:4] == ["backward", "higher", "yes"]


def test_list_for_programs_has_everything_that_show_has(loaded: Any) -> None:
    found = loaded("proxies", "list")

    assert [proxy["name"] for proxy in found["proxies"]] == list(PROXIES)
    for record in [*found["proxies"], *found["ensembles"]]:
        assert loaded("proxies", "show", record["name"]) == record
    assert [each["name"] for each in found["ensembles"] if each["recommended"]] == [
        RECOMMENDED.name
    ]


def test_show_explains_a_proxy(said: Any, loaded: Any) -> None:
    text = said("proxies", "show", "naswot")
    record = loaded("proxies", "show", "naswot")

    for word in ("log |det K|", "Mellor", "higher", "forward", "NAS-Bench-201", "CIFAR-100"):
        assert word in text
    assert record["needs"] == ["code_agreement"]
    assert record["published"][0]["kendall"] == 0.557


@pytest.mark.parametrize("name", [*PROXIES, *ENSEMBLES])
def test_everything_can_be_shown(name: str, said: Any) -> None:
    assert name in said("proxies", "show", name)


@pytest.mark.parametrize("name", list(PROXIES))
def test_the_ensembles_of_a_proxy_are_those_that_name_it(name: str, loaded: Any) -> None:
    found = loaded("proxies", "show", name)["ensembles"]

    assert found == [each.name for each in ENSEMBLES.values() if name in each.members]


def test_a_name_that_is_none_is_a_sentence_with_the_choices(said: Any) -> None:
    message = said("proxies", "show", "magic", code=2)

    assert "no proxy and no ensemble 'magic'" in message
    assert "naswot" in message
    assert RECOMMENDED.name in message


def test_a_study_may_name_whatever_there_is() -> None:
    assert set(get_args(ProxyName)) == set(PROXIES)
    assert set(get_args(EnsembleName)) == set(ENSEMBLES)
    assert RECOMMENDED.name == DEFAULT_ENSEMBLE
