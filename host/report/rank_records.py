"""Rankings for programs and spreadsheets: SI units, in the names; absent is None."""

from collections.abc import Iterator, Sequence
from typing import Any

from host.ranking.ranking import MACS, Place
from host.ranking.uncertainty import PERCENTILES
from host.report.cost_records import finite, forecast_record
from host.report.rank import NamedRanking, reservations

Record = dict[str, Any]


def ranking_record(named: NamedRanking, seed: int) -> Record:
    """Everything, all places; what has no finite score is None."""
    ranking = named.ranking
    return {
        "source": named.source,
        "ensemble": ranking.ensemble.name,
        "proxies": list(ranking.ensemble.members),
        "weights": dict(ranking.ensemble.weights),
        "formula": ranking.ensemble.formula,
        "kind": "score",
        "seed": seed,
        "draws": ranking.draws,
        "rank_percentiles": list(PERCENTILES) if ranking.draws > 1 else None,
        "networks": named.count,
        "pruned": ranking.pruned,
        "pruned_by": list(ranking.pruned_by),
        "devices": [
            {
                "device": name,
                "runtime_library": predictor.setting.library,
                "runtime_version": predictor.setting.version,
                "threads": predictor.setting.threads,
            }
            for name, predictor in ranking.predictors.items()
        ],
        "notes": reservations(ranking),
        "ranking": [_place_record(place, tuple(ranking.predictors)) for place in ranking.places],
    }


def csv_rows(named: NamedRanking) -> Iterator[list[str]]:
    """A header and one row a network; empty fields where there is nothing to say."""
    ranking = named.ranking
    devices = tuple(ranking.predictors)
    proxies = ranking.ensemble.members
    yield [
        *("rank", "rank_low", "rank_high", "score"),
        *(f"score {name}" for name in proxies),
        *("macs", "parameters"),
        *(
            f"{device} predicted {column}"
            for device in devices
            for column in ("latency_seconds", "low", "high", "level", "on_front")
        ),
        *(() if devices else ("macs on_front",)),
        *("space", "key", "network"),
    ]
    for place in ranking.places:
        yield [_csv(value) for value in _values(place, proxies, devices)]


def _place_record(place: Place, devices: Sequence[str]) -> Record:
    low, high = place.ranks or (None, None)
    subject = place.subject
    record: Record = {
        "rank": place.rank,
        "rank_low": low,
        "rank_high": high,
        "network": subject.text,
        "key": subject.key,
        "space": subject.space,
        "score": place.score,
        "scores": {name: finite(value) for name, value in place.scores.items()},
        "macs": subject.macs,
        "parameters": subject.parameters,
    }
    if not devices:
        return record | {"on_front": place.costs[MACS].on_front, "predicted": []}
    predicted = []
    for name in devices:
        cost = place.costs[name]
        if cost.prediction is not None:
            latency = forecast_record(cost.prediction)
            predicted.append(
                {"device": name, "latency_seconds": latency, "on_front": cost.on_front}
            )
    return record | {"predicted": predicted}


def _values(place: Place, proxies: Sequence[str], devices: Sequence[str]) -> Iterator[Any]:
    yield from (place.rank, *(place.ranks or (None, None)), place.score)
    yield from (finite(place.scores[name]) for name in proxies)
    yield from (place.subject.macs, place.subject.parameters)
    for name in devices:
        cost = place.costs[name]
        told = cost.prediction
        if told is not None:
            yield from (told.value, told.low, finite(told.high), told.level, cost.on_front)
    if not devices:
        yield place.costs[MACS].on_front
    yield from (place.subject.space, place.subject.key, place.subject.text)


def _csv(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
