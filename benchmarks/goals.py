"""What the benchmark is to show, and whether it did.

Owns the shape of a goal and the table of all. Must not measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Goal(NamedTuple):
    """One goal and what was measured of it; `met` is about the median, and None where nothing could be measured."""

    name: str
    text: str  # what is wanted, as in "at least 0.97"
    value: float | None
    met: bool | None
    spread: tuple[float, float] | None = None  # quartiles over the rounds
    why: str = ""  # not measured, or anything else that the figure alone does not say


def at_least(name: str, bound: float, found: Sequence[float], unit: str = "", why: str = "") -> Goal:
    """Return the goal of a figure that is to be high; `found`: its median, lower and upper quartile."""
    median, low, high = found
    return Goal(name, f"at least {bound:g}{_after(unit)}", median, median >= bound, (low, high), why)


def at_most(name: str, bound: float, found: Sequence[float], unit: str = "", why: str = "") -> Goal:
    """Return the goal of a figure that is to be low; `found`: its median, lower and upper quartile."""
    median, low, high = found
    return Goal(name, f"at most {bound:g}{_after(unit)}", median, median <= bound, (low, high), why)


def unmeasured(name: str, text: str, why: str) -> Goal:
    """Return the goal of a figure that could not be had here."""
    return Goal(name, text, None, None, None, why)


def table(goals: Iterable[Goal]) -> str:
    """Return all goals as text, a line each, and what there is to add below."""
    goals = list(goals)
    width = max([len("goal"), *(len(goal.name) for goal in goals)])
    lines = [f"{'goal':{width}}  {'wanted':16}{'measured':>10}  {'quartiles':18}"]
    for goal in goals:
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[goal.met]
        value = "" if goal.value is None else shown(goal.value)
        spread = "" if goal.spread is None else " to ".join(map(shown, goal.spread))
        line = f"{goal.name:{width}}  {goal.text:16}{value:>10}  {spread:18}{verdict}"
        lines.append(f"{line}: {goal.why}" if goal.why else line)
    return "\n".join(lines)


def shown(value: float) -> str:
    """Return a figure with the digits that it deserves."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 20 else f"{value:.3f}"


def _after(unit: str) -> str:
    return f" {unit}" if unit else ""
