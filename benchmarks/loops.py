"""Event loops: how many datagrams a second each takes while more come than it can.

Owns the rounds and the ratios. asyncio's and uvloop's protocols are given each datagram as bytes, with its source; so
ours is held against them with the source kept and a view made of each, and shown batch by batch, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import goals as aims
import roster
import style
from figures import missing, quartiles, ratio
from live import Contender, Feed, Stage, absentees, circumstances
from programs import built
from settings import Settings

TITLE = "datagrams a second under an event loop, when more come than it takes"
SIZE, TRAIN = 200, 64
CONTENDERS = (
    *(roster.ASYNCIO, roster.UVLOOP, roster.EXPERT_ASYNC),
    *(roster.NATIVE_ASYNCIO, roster.NATIVE_ASYNCIO_VIEWS, roster.NATIVE_UVLOOP, roster.NATIVE_UVLOOP_VIEWS),
)


class Plan(NamedTuple):
    """How long to look."""

    seconds: float  # of a contender's turn
    rounds: int


def plan(settings: Settings) -> Plan:
    """Return what the settings mean here."""
    if settings.quick:
        return Plan(0.5, 3)
    return Plan(2.0, 15) if settings.full else Plan(1.0, 5)


def run(settings: Settings) -> dict[str, Any]:
    """Measure all."""
    with built() as programs:
        return measure(Stage(programs), CONTENDERS, plan(settings), settings.seed)


def measure(stage: Stage, contenders: Sequence[Contender], how: Plan, seed: int) -> dict[str, Any]:
    """Let contenders take turns at a feed that comes as fast as the sender goes."""
    runs, absent = stage.take_turns(contenders, Feed(0, how.seconds, SIZE, TRAIN), how.rounds, seed)
    return {
        "plan": how._asdict() | {"size": SIZE, "train": TRAIN},
        "about": stage.about(),
        "found": {
            name: {
                "rates": [each.received / each.seconds for each in own],
                "offered": [each.offered for each in own],
                "lost": [each.lost / each.sent for each in own],
            }
            for name, own in runs.items()
        },
        "absent": absent,
    }


def show(result: Mapping[str, Any]) -> str:
    """Return the table."""
    how, found = result["plan"], result["found"]
    width = max(map(len, [*found, *result["absent"]]), default=0)
    lines = [
        f"{how['size']} bytes in trains of {how['train']}, which the kernel cuts, as fast as the sender goes; "
        f"{how['rounds']} rounds of {how['seconds']:g} s each;\n{circumstances(result['about'])}\n",
        f"{'':{width}}{'datagrams/s':>13}{'offered':>12}{'lost':>7}  quartiles",
    ]
    for name, each in found.items():
        median, low, high = quartiles(each["rates"])
        offered, lost = quartiles(each["offered"]).median, quartiles(each["lost"]).median
        note = "" if lost else "  it stood what the sender can send"
        lines.append(f"{name:{width}}{median:>13,.0f}{offered:>12,.0f}{lost:>7.0%}  {low:,.0f} to {high:,.0f}{note}")
    return "\n".join(lines + absentees(result["absent"], width))


def goals(result: Mapping[str, Any]) -> list[aims.Goal]:
    """Hold ours against the loop's own protocol."""
    found = []
    for ours, theirs, bound in (
        (roster.NATIVE_ASYNCIO_VIEWS, roster.ASYNCIO, 4),
        (roster.NATIVE_UVLOOP_VIEWS, roster.UVLOOP, 2),
    ):
        title = f"datagrams/s, {ours.name}, of {theirs.name}"
        goal = missing(title, f"at least {bound}", result, ours.name, theirs.name)
        if goal is None:
            own, other = (result["found"][name] for name in (ours.name, theirs.name))
            goal = aims.at_least(title, bound, ratio(own["rates"], other["rates"]))
            if quartiles(own["lost"]).median == 0:
                goal = goal._replace(why="it stood all that the sender could send: it may take more")
        found.append(goal)
    return found


def plot(result: Mapping[str, Any], figure: Any) -> None:
    """Draw a bar for each contender."""
    axes = figure.subplots()
    style.bars(axes, {name: quartiles(each["rates"]) for name, each in result["found"].items()}, "datagrams/s")
    axes.set_title("Event loops, when more comes than they take")
