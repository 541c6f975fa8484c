"""A plan as a table for a terminal."""

from darkroom.planning.estimate import Estimate
from darkroom.planning.fit import CONFIDENCE
from darkroom.planning.place import Place
from darkroom.planning.plan import Plan

_PLUS = "\N{PLUS-MINUS SIGN}"


def table_lines(plan: Plan, price_cpu_hour: float, price_gpu_hour: float) -> list[str]:
    """A line a stage and one for all; money where an hour has a price."""
    has_money = bool(price_cpu_hour or price_gpu_hour)
    heads = ["stage", "jobs", "wall time", "CPU h", "GPU h", "memory", "disk", "network"]
    rows = [heads[:5] + ["money"] * has_money + heads[5:]]
    for name, row in [*plan.stages.items(), ("total", plan.total)]:
        money = [f"{row.money(price_cpu_hour, price_gpu_hour):,.2f}"] if has_money else []
        rows.append(
            [name, f"{row.jobs:,}", _wall(row), _hours(row.core_s), _hours(row.gpu_s), *money, *_sizes(row)]
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def closing_lines(plan: Plan, place: Place) -> list[str]:
    """What the table was made from, and what it assumes."""
    slots = f"{place.slots} jobs at a time, without waiting in the queue"
    if place.machine:
        slots = f"{place.slots} cores that nothing else uses"
    return [
        f"{_PLUS}: {CONFIDENCE:.0%} interval; stages follow each other, on {slots}",
        f"rates: {plan.num_measured} jobs measured on {'; '.join(plan.machines)}",
        *(f"{name}: {number:,} rows" for name, number in plan.rows.items()),
        *(share.line for share in plan.shares),
    ]


def lacking_lines(plan: Plan) -> list[str]:
    """What is not known, and what to run."""
    lines = [f"{row.stage}: {row.work}: {row.why}" for row in plan.lacking]
    return [
        *lines,
        f"no plan without these rates: run `darkroom plan {plan.run} --calibrate`, or these stages",
    ]


def span(seconds: float) -> str:
    """A time as its largest unit has it: `12 s`, `3.4 min`, `5.6 h`, `7.8 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def _wall(row: Estimate) -> str:
    share = row.wall_s_half / row.wall_s if row.wall_s else 0.0
    return f"{span(row.wall_s)} {_PLUS}{share:.0%}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _sizes(row: Estimate) -> list[str]:
    return [_bytes(row.memory_mib * 2**20), _bytes(row.disk_bytes), _bytes(row.network_bytes)]


def _bytes(number: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.1f} kB" if number else "0"
