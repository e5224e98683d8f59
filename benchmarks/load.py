"""Receiver's CPU at a fixed load: what one core is kept busy by the same feed, taken in by each receiver.

Owns the rounds and what is made of the CPU seconds that the kernel counts for each receiver's process (getrusage).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import goals as aims
import roster
import style
from figures import quartiles
from live import Contender, Feed, Run, Stage, absentees, circumstances
from programs import built
from settings import Settings

TITLE = "the receiver's CPU at a fixed load"
SIZE, RATE = 200, 100_000


class Plan(NamedTuple):
    """How long to look."""

    seconds: float  # of a contender's turn
    rounds: int
    rate: float = RATE


def plan(settings: Settings) -> Plan:
    """Return what the settings mean here."""
    if settings.quick:
        return Plan(0.5, 2)
    return Plan(5.0, 5) if settings.full else Plan(1.0, 3)


def run(settings: Settings) -> dict[str, Any]:
    """Measure all."""
    with built() as programs:
        return measure(Stage(programs), roster.ALL, plan(settings), settings.seed)


def measure(stage: Stage, contenders: Sequence[Contender], how: Plan, seed: int) -> dict[str, Any]:
    """Let contenders take turns at the same load."""
    runs, absent = stage.take_turns(contenders, Feed(how.rate, how.seconds, SIZE), how.rounds, seed)
    return {
        "plan": how._asdict() | {"size": SIZE},
        "about": stage.about(),
        "found": {name: [_figures(each) for each in own] for name, own in runs.items()},
        "absent": absent,
    }


def _figures(run: Run) -> dict[str, float]:
    return {
        "share": run.cpu / run.seconds,
        "ns": run.cpu * 1e9 / max(1, run.received),
        "user": run.user,
        "system": run.system,
        "offered": run.offered,
        "lost": run.lost / run.sent,
    }


def show(result: Mapping[str, Any]) -> str:
    """Return the table."""
    how, found = result["plan"], result["found"]
    width = max(map(len, [*found, *result["absent"]]), default=0)
    lines = [
        f"{how['rate']:,.0f}/s of {how['size']} bytes, sent one by one, {how['rounds']} rounds of {how['seconds']:g} s "
        f"each;\n{circumstances(result['about'])}\n",
        f"{'':{width}}{'of a core':>11}{'in kernel':>11}{'ns/datagram':>13}  quartiles",
    ]
    for name, rounds in found.items():
        of = {key: [each[key] for each in rounds] for key in rounds[0]}
        median, low, high = quartiles(of["ns"])
        kernel = sum(of["system"]) / max(1e-9, sum(of["system"]) + sum(of["user"]))
        lost = sum(of["lost"]) / len(rounds)
        note = f"  lost {lost:.2%}" if lost else ""
        lines.append(
            f"{name:{width}}{quartiles(of['share']).median:>11.1%}{kernel:>11.0%}{median:>13,.0f}"
            f"  {low:,.0f} to {high:,.0f}{note}"
        )
    offered = quartiles(each["offered"] for rounds in found.values() for each in rounds)
    lines.append(f"really offered: {offered.median:,.0f}/s, quartiles {offered.low:,.0f} to {offered.high:,.0f}")
    return "\n".join(lines + absentees(result["absent"], width))


def goals(result: Mapping[str, Any]) -> list[aims.Goal]:
    """Return none: the CPU is shown, and nothing was promised of it."""
    return []


def plot(result: Mapping[str, Any], figure: Any) -> None:
    """Draw a bar for each contender."""
    axes = figure.subplots()
    found = {name: quartiles(each["ns"] for each in rounds) for name, rounds in result["found"].items()}
    style.bars(axes, found, "ns of the receiver's CPU for each datagram")
    axes.set_title(f"CPU at {result['plan']['rate']:,.0f} datagrams/s")
