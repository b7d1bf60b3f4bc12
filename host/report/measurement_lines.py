"""What there is to say of one measurement, subject by subject, as plain lines."""

from collections.abc import Iterator, Mapping
from statistics import median

from host.measurement import Energy, Measurement
from host.report.units import MB, MS

ABSENT = "–"
_US = 1e6
_PLACES = 4  # significant figures: the interval of a good median is ±0.5 %
Words = Mapping[str, str]


def figures(value: float | None, places: int = _PLACES) -> str:
    """So many significant figures, all digits before the point, never an exponent; "–" for None."""
    if value is None:
        return ABSENT
    if abs(value) >= 10 ** (places - 1):
        return f"{value:.0f}"
    shown = f"{value:#.{places}g}"
    return shown if "e" not in shown else f"{value:.{places + 4}f}"


def milliseconds(seconds: float | None) -> str:
    """Four significant figures, without the unit."""
    return figures(None if seconds is None else seconds * MS)


def megabytes(size_bytes: float | None) -> str:
    """Three significant figures, of 1,000,000 bytes, without the unit."""
    return figures(None if size_bytes is None else size_bytes * MB, 3)


def percent(share: float | None) -> str:
    """Two significant figures, without the sign."""
    return ABSENT if share is None else figures(share * 100, 2)


def subjects(m: Measurement, words: Words) -> Iterator[tuple[str, list[str]]]:
    """Keys of the texts, each with its lines; the verdict is left out."""
    yield "latency", _latency(m, words)
    yield "tail", [_tail(m, words)]
    yield "spread", _spread(m, words)
    if m.latency.relative_to_reference is not None:
        yield "reference", [_reference(m, words)]
    yield "start", _start(m, words)
    yield "memory", _memory(m, words)
    yield "energy", _energy(m, words)
    yield "runtime", _runtime(m, words)
    yield "device", _device(m, words)
    when = f"{m.measured_at.astimezone():%Y-%m-%d %H:%M:%S}"
    yield "measured_at", [f"{when} ({words['protocol']} {m.protocol})"]


def _tail(m: Measurement, words: Words) -> str:
    """p90 and beyond in ms, each with the reason where there is none."""
    known = [
        f"p{q.level * 100:.0f} {milliseconds(q.seconds)} ms"
        for q in m.latency.quantiles
        if q.seconds is not None
    ]
    absent: dict[str, list[str]] = {}
    for q in m.latency.quantiles:
        if q.seconds is None:
            absent.setdefault(q.absent_because, []).append(f"p{q.level * 100:.0f}")
    comma = words["comma"]
    missing = [f"{comma.join(names)} {ABSENT} ({why})" for why, names in absent.items()]
    return comma.join([*known, *missing])


def _latency(m: Measurement, words: Words) -> list[str]:
    low, high = m.latency_interval_seconds
    lines = [
        words["interval"].format(
            value=milliseconds(m.latency_seconds),
            low=milliseconds(low),
            high=milliseconds(high),
            half=percent(m.latency.half_width),
        ),
        words["samples"].format(
            kind=words[f"kind.{m.latency_kind}"],
            n=m.sample_count,
            clean=m.latency.clean,
            processes=len(m.processes),
        ),
    ]
    if m.latency_kind != "measured":
        lines.append(words["raw"].format(value=milliseconds(m.latency.raw_seconds)))
    return lines


def _spread(m: Measurement, words: Words) -> list[str]:
    latency = m.latency
    lines = [
        words["spread_line"].format(
            mean=milliseconds(latency.mean_seconds),
            least=milliseconds(latency.min_seconds),
            mad=figures(latency.mad_seconds * MS, 2),
        )
    ]
    trends = []
    if latency.between_processes is not None:
        trends.append(words["between"].format(share=percent(latency.between_processes)))
    if latency.drift is not None:
        trends.append(words["drift"].format(share=percent(latency.drift)))
    return lines + ([words["comma"].join(trends)] if trends else [])


def _reference(m: Measurement, words: Words) -> str:
    latency = m.latency
    derived = latency.kind == "derived"
    seconds = latency.reference_cpu_seconds if derived else latency.reference_seconds
    return words["reference_line"].format(
        times=figures(latency.relative_to_reference, 3), value=milliseconds(seconds)
    )


def _start(m: Measurement, words: Words) -> list[str]:
    load = median(process.load_seconds for process in m.processes)
    first = median(process.first_inference_seconds for process in m.processes)
    overhead = median(process.call_overhead_seconds for process in m.processes)
    lines = [words["start_line"].format(load=milliseconds(load), first=milliseconds(first))]
    if overhead > 0:
        lines.append(words["overhead"].format(value=figures(overhead * _US, 2)))
    return lines


def _memory(m: Measurement, words: Words) -> list[str]:
    memory = max((p.memory for p in m.processes), key=lambda memory: memory.peak_rss_bytes)
    lines = [
        words["memory_line"].format(
            base=megabytes(m.base_rss_bytes),
            load=megabytes(m.load_rss_bytes),
            peak=megabytes(m.peak_rss_bytes),
        )
    ]
    if memory.uss_bytes is not None and memory.base_uss_bytes is not None:
        base, end = megabytes(memory.base_uss_bytes), megabytes(memory.uss_bytes)
        lines.append(words["memory_uss"].format(base=base, end=end))
    elif memory.uss_bytes is not None:
        lines.append(words["memory_uss_end"].format(end=megabytes(memory.uss_bytes)))
    if memory.pss_bytes is not None:
        lines.append(words["memory_pss"].format(end=megabytes(memory.pss_bytes)))
    lines.append(words["memory_file"].format(size=megabytes(m.run.model_size_bytes)))
    return lines


def _energy(m: Measurement, words: Words) -> list[str]:
    if not m.energies:
        return [words["none"].format(why=m.energy_absent_because or words["no_reason"])]
    best, *others = m.energies
    return [*_energy_lines(best, words), *(_other_energy(energy, words) for energy in others)]


def _energy_lines(e: Energy, words: Words) -> Iterator[str]:
    net_low, net_high = e.net_interval_joules
    gross_low, gross_high = e.gross_interval_joules
    yield words["energy_line"].format(
        net=_millijoules(e.net_joules),
        net_low=_millijoules(net_low),
        net_high=_millijoules(net_high),
        gross=_millijoules(e.gross_joules),
        gross_low=_millijoules(gross_low),
        gross_high=_millijoules(gross_high),
    )
    yield words["power_line"].format(busy=figures(e.power_watts, 3), idle=figures(e.idle_watts, 3))
    yield words["source_line"].format(
        kind=words[f"energy_kind.{e.kind}"],
        source=e.source,
        scope=words[f"scope.{e.scope}"],
        windows=e.windows,
        readings=e.readings,
        hertz=figures(e.reading_hertz, 2),
        lag=figures(e.lag_seconds, 2),
    )
    if e.paced_hertz is not None and e.paced_gross_joules is not None:
        yield words["paced_energy"].format(
            hertz=f"{e.paced_hertz:g}",
            gross=_millijoules(e.paced_gross_joules),
            power=figures(e.paced_power_watts, 3),
        )
    yield from e.warnings


def _other_energy(e: Energy, words: Words) -> str:
    return words["other_energy"].format(
        kind=words[f"energy_kind.{e.kind}"],
        source=e.source,
        scope=words[f"scope.{e.scope}"],
        net=_millijoules(e.net_joules),
        gross=_millijoules(e.gross_joules),
    )


def _millijoules(joules: float) -> str:
    return figures(joules * MS, 3)


def _runtime(m: Measurement, words: Words) -> list[str]:
    threads = words["thread"] if m.threads == 1 else words["threads"].format(count=m.threads)
    lines = [f"{m.runtime_library} {m.runtime_version}{words['comma']}{threads}"]
    if m.runtime_options:
        lines.append(", ".join(m.runtime_options))
    lines += [
        words["shape"].format(name=shape.name, sizes="×".join(map(str, shape.sizes)))
        for shape in m.run.input_shapes
    ]
    return lines


def _device(m: Measurement, words: Words) -> list[str]:
    cores = (
        words["cores"].format(cores=", ".join(map(str, m.cpus))) if m.cpus else words["cores_free"]
    )
    governor = (
        words["governor"].format(name=m.governor) if m.governor else words["governor_unknown"]
    )
    lines = [f"{cores}{words['comma']}{governor}", _temperature(m, words)]
    thermal = m.thermal
    if thermal.throttled:
        lines.append(words["throttled"].format(what=", ".join(thermal.throttled)))
    if thermal.throttle_events:
        lines.append(words["throttle_events"].format(count=thermal.throttle_events))
    load = f"{m.load_average_start:.2f}"
    if m.preflight is None:
        return [*lines, words["load_only"].format(load=load)]
    lines.append(words["foreign"].format(share=percent(m.preflight.foreign_cpu), load=load))
    if m.preflight.waited_seconds >= 1:
        lines.append(words["waited"].format(seconds=figures(m.preflight.waited_seconds, 2)))
    return lines


def _temperature(m: Measurement, words: Words) -> str:
    thermal = m.thermal
    told = [
        words[f"celsius.{name}"].format(value=f"{value:.1f}")
        for name, value in (
            ("start", thermal.start_celsius),
            ("end", thermal.end_celsius),
            ("max", thermal.max_celsius),
        )
        if value is not None
    ]
    told = told or [words["temperature_unknown"]]
    if thermal.cooled_seconds > 0:
        told.append(words["cooled"].format(seconds=figures(thermal.cooled_seconds, 2)))
    return words["comma"].join(told)
