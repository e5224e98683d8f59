"""Loss-free rate: how many datagrams a second each receiver takes before it first loses one in a million.

Owns the steps and the search among them. A step is a new process of the receiver and a feed at a fixed rate; the rates
are a geometric row below the sender's own ceiling, and each contender finds its place in it by halving. The contenders
take turns step by step. A receive buffer that is the same for all takes up what comes in a burst, and at the shorter
steps also a little more than the receiver takes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import goals as aims
import roster
import style
from figures import missing, quartiles, ratio
from live import Absent, Contender, Feed, Run, Stage, absentees, circumstances
from programs import built
from settings import Settings

TITLE = "the rate at which a receiver first loses one datagram in a million"
TOLERATED = 1e-6
SIZE, TRAIN = 200, 32
LOWEST = 5_000  # datagrams a second
SHORT = 0.9  # of the rate that the sender was to send at
FAMILIES = {"nothing": roster.TOLD_NOTHING, "source": roster.TOLD_SOURCE, "all": roster.TOLD_ALL}


class Plan(NamedTuple):
    """How finely to look."""

    seconds: float  # of a step
    factor: float  # from one rate to the next
    rounds: int
    lowest: float = LOWEST


def plan(settings: Settings) -> Plan:
    """Return what the settings mean here."""
    if settings.quick:
        return Plan(0.5, 1.2, 1)
    return Plan(5.0, 1.05, 3) if settings.full else Plan(1.0, 1.1, 2)


def run(settings: Settings) -> dict[str, Any]:
    """Measure all."""
    with built() as programs:
        contenders = [each for those in FAMILIES.values() for each in those]
        return measure(Stage(programs), contenders, plan(settings), settings.seed)


def measure(stage: Stage, contenders: Sequence[Contender], how: Plan, seed: int) -> dict[str, Any]:
    """Let contenders search in turns, round after round."""
    feed = Feed(0, how.seconds, SIZE, TRAIN)
    most = {
        name: stage.run(roster.C_RECVMMSG, each).offered
        for name, each in (("trains", feed), ("singles", feed._replace(train=1)))
    }
    rates = ladder(most["trains"], how)
    found: dict[str, list[dict[str, Any]]] = {each.name: [] for each in contenders}
    absent: dict[str, str] = {}
    dice = random.Random(seed)
    for _ in range(how.rounds):
        searching = {each: Search(rates) for each in contenders if each.name not in absent}
        while going := [each for each, search in searching.items() if not search.done]:
            dice.shuffle(going)
            for each in going:
                search = searching[each]
                try:
                    rate = rates[search.step] if search.step < len(rates) - 1 else 0
                    search.note(stage.run(each, feed._replace(rate=rate)))
                except Absent as reason:
                    absent[each.name] = str(reason)
                    del searching[each]
        for each, search in searching.items():
            found[each.name].append(search.outcome())
    return {
        "plan": how._asdict() | {"size": SIZE, "train": TRAIN},
        "about": stage.about(),
        "ceiling": most,
        "found": {name: each for name, each in found.items() if each},
        "absent": {each.name: absent[each.name] for each in contenders if each.name in absent},
    }


def ladder(ceiling: float, how: Plan) -> list[float]:
    """Return the rates to try, up to the ceiling: there the sender sends as fast as it goes."""
    rates, rate = [], ceiling
    while rate > how.lowest or not rates:
        rates.append(rate)
        rate /= how.factor
    return rates[::-1]


class Search:
    """Finds the step before the first that loses, by halving; the last step is tried first, since many stand it.

    Where nothing was lost and the sender sent less than it was to, for somebody else had its core, the step is tried
    once more; after that, it is all that the sender can send to this receiver.

    Attributes: step, the one to try next; runs, of all that were tried.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        self._rates = rates
        self._stood, self._lost = -1, len(rates)
        self._short: set[int] = set()
        self._best: Run | None = None
        self.step = len(rates) - 1
        self.runs: list[Run] = []

    @property
    def done(self) -> bool:
        return self._lost - self._stood <= 1

    def note(self, run: Run) -> None:
        """Take in what trying the step brought."""
        self.runs.append(run)
        if run.lost > TOLERATED * run.sent:
            self._lost = self.step
        else:
            if self._best is None or run.offered > self._best.offered:
                self._best = run
            short = run.offered < SHORT * self._rates[self.step]
            if short and self.step not in self._short:
                self._short.add(self.step)
                return
            self._stood = self.step
        self.step = (self._stood + self._lost) // 2

    def outcome(self) -> dict[str, Any]:
        """Return the highest rate that was stood, 0 where none was, and all that was tried."""
        return {
            "rate": 0.0 if self._best is None else self._best.offered,
            "at_ceiling": self._stood == len(self._rates) - 1,
            "steps": [{"offered": run.offered, "sent": run.sent, "lost": run.lost} for run in self.runs],
        }


def rates_of(result: Mapping[str, Any], name: str) -> list[float]:
    """Return a contender's rate, round by round."""
    return [each["rate"] for each in result["found"][name]]


def at_ceiling(result: Mapping[str, Any], name: str) -> bool:
    """Whether the sender could not overwhelm it in any round."""
    return all(each["at_ceiling"] for each in result["found"][name])


def show(result: Mapping[str, Any]) -> str:
    """Return the table, a part for each kind of what the kernel is asked to tell."""
    how, most = result["plan"], result["ceiling"]
    lines = [
        f"{how['size']} bytes, {how['seconds']:g} s a step, steps of {how['factor']:g}, {how['rounds']} rounds; the "
        f"feed comes in trains of {how['train']},\nwhich the kernel cuts: the sender gets to {most['trains']:,.0f}/s "
        f"so, one by one to {most['singles']:,.0f}/s;\n{circumstances(result['about'])}"
    ]
    width = max(map(len, [*result["found"], *result["absent"]]), default=0)
    for told, contenders in FAMILIES.items():
        names = [each.name for each in contenders if each.name in result["found"]]
        lines.append(f"\n{f'told beside each: {told}':{width}}{'datagrams/s':>14}  quartiles")
        for name in names:
            median, low, high = quartiles(rates_of(result, name))
            note = "  the sender's ceiling" if at_ceiling(result, name) else ""
            lines.append(f"{name:{width}}{median:>14,.0f}  {low:,.0f} to {high:,.0f}{note}")
        gone = {each.name: result["absent"][each.name] for each in contenders if each.name in result["absent"]}
        lines += absentees(gone, width)
    return "\n".join(lines)


def goals(result: Mapping[str, Any]) -> list[aims.Goal]:
    """Hold ours against the standard library's loop that is told the same."""
    pairs = (
        ("payload", roster.NATIVE, roster.RECV_INTO),
        ("with the source", roster.NATIVE_SOURCE, roster.RECVFROM_INTO),
        ("with all columns", roster.NATIVE_TOLD, roster.RECVMSG_INTO),
    )
    return [
        _goal(result, f"loss-free rate, {what}, of {theirs.name}", ours.name, theirs.name)
        for what, ours, theirs in pairs
    ]


def _goal(result: Mapping[str, Any], title: str, ours: str, theirs: str) -> aims.Goal:
    gone = missing(title, "at least 2", result, ours, theirs)
    if gone is not None:
        return gone
    own, other = rates_of(result, ours), rates_of(result, theirs)
    if not all(other):
        return aims.unmeasured(title, "at least 2", f"{theirs} lost some at every rate")
    goal = aims.at_least(title, 2, ratio(own, other))
    if at_ceiling(result, ours) and at_ceiling(result, theirs):
        return goal._replace(met=None, why="the sender could overwhelm neither")
    if not goal.met and at_ceiling(result, ours):
        return goal._replace(met=True, why=f"it stood all that the sender can send, {min(own):,.0f}/s")
    return goal


def plot(result: Mapping[str, Any], figure: Any) -> None:
    """Draw a bar for each contender."""
    axes = figure.subplots()
    names = [name for name in result["found"] if any(rates_of(result, name))]
    style.bars(axes, {name: quartiles(rates_of(result, name)) for name in names}, "datagrams/s without loss")
    axes.axvline(result["ceiling"]["trains"], color=style.FAINT, linewidth=1)
    axes.set_title("Loss-free rate; the grey line is the sender's ceiling")
