"""Wake-up latency: how long a single datagram takes from the sender's clock to the receiver's.

Owns the rounds and what is made of the delays. The sender reads CLOCK_MONOTONIC right before its send, the receiver the
same clock right after its receive has returned: so the kernel's way through the loopback interface is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import goals as aims
import roster
import style
from figures import edges, histogram, missing, percentile, quartiles, ratio
from live import Contender, Failure, Feed, Run, Stage, absentees, circumstances
from programs import built
from settings import Settings

TITLE = "wake-up latency of one datagram at a time"
SIZE, RATE = 200, 1_000  # a second; gaps from half to one and a half of that
SETTLING = 20  # datagrams at the start of a round that don't count
CONTENDERS = (
    *(roster.C_RECV, roster.C_RECVMMSG, roster.GO, roster.RECV_INTO, roster.EXPERT, roster.TWIN),
    *(roster.NATIVE, roster.NATIVE_SPIN, roster.ASYNCIO, roster.NATIVE_ASYNCIO, roster.NATIVE_ASYNCIO_CALLBACK),
    *(roster.UVLOOP, roster.NATIVE_UVLOOP, roster.NATIVE_UVLOOP_CALLBACK),
)
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Plan(NamedTuple):
    """How long to look."""

    seconds: float  # of a contender's turn
    rounds: int


def plan(settings: Settings) -> Plan:
    """Return what the settings mean here."""
    if settings.quick:
        return Plan(0.5, 3)
    return Plan(1.0, 20 if settings.full else 5)


def run(settings: Settings) -> dict[str, Any]:
    """Measure all."""
    with built() as programs:
        return measure(Stage(programs), CONTENDERS, plan(settings), settings.seed)


def measure(stage: Stage, contenders: Sequence[Contender], how: Plan, seed: int) -> dict[str, Any]:
    """Let contenders take turns, short rounds of each."""
    runs, absent = stage.take_turns(contenders, Feed(RATE, how.seconds, SIZE, stamped=True), how.rounds, seed)
    return {
        "plan": how._asdict() | {"size": SIZE, "rate": RATE},
        "about": stage.about(),
        "found": {name: summary(name, own) for name, own in runs.items()},
        "absent": absent,
    }


def summary(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what is kept of one contender: p50 round by round, percentiles of all rounds together, their histogram."""
    rounds = [sorted(run.delays[SETTLING:]) for run in runs]
    if not all(rounds):
        raise Failure(f"{name} received no more than {SETTLING} datagrams in a round")
    together = sorted(delay for each in rounds for delay in each)
    return {
        "datagrams": len(together),
        "lost": sum(run.lost for run in runs),
        "p50_of_rounds": [percentile(each, 0.5) for each in rounds],
        "ns": {word: percentile(together, share) for word, share in SHARES.items()},
        "histogram": histogram(together),
    }


def show(result: Mapping[str, Any]) -> str:
    """Return the table."""
    how, found = result["plan"], result["found"]
    width = max(map(len, [*found, *result["absent"]]), default=0)
    lines = [
        f"{how['size']} bytes, {how['rate']:,}/s with uneven gaps, {how['rounds']} rounds of {how['seconds']:g} s "
        f"each;\n{circumstances(result['about'])}\n",
        f"{'µs':{width}}{''.join(f'{word:>10}' for word in SHARES)}  p50, quartiles of rounds",
    ]
    for name, each in found.items():
        _, low, high = quartiles(each["p50_of_rounds"])
        figures = "".join(f"{each['ns'][word] / 1000:>10.1f}" for word in SHARES)
        lines.append(f"{name:{width}}{figures}  {low / 1000:.1f} to {high / 1000:.1f}")
    return "\n".join(lines + absentees(result["absent"], width))


def goals(result: Mapping[str, Any]) -> list[aims.Goal]:
    """Hold ours against the socket module's blocking receive."""
    found, reference = [], roster.RECV_INTO.name
    for what, ours, bound in (("blocking", roster.NATIVE, 1.05), ("spin=", roster.NATIVE_SPIN, 0.25)):
        title = f"wake-up p50, {what}, of blocking {reference}"
        gone = missing(title, f"at most {bound:g}", result, ours.name, reference)
        if gone is None:
            own, theirs = (result["found"][name]["p50_of_rounds"] for name in (ours.name, reference))
            gone = aims.at_most(title, bound, ratio(own, theirs))
        found.append(gone)
    return found


def plot(result: Mapping[str, Any], figure: Any) -> None:
    """Draw a histogram for each contender, one above the other."""
    axes = figure.subplots()
    names = list(result["found"])[::-1]
    for at, name in enumerate(names):
        own = result["found"][name]
        counts, most = own["histogram"]["counts"], max(own["histogram"]["counts"])
        axes.stairs(
            [at + 0.85 * count / most for count in counts],
            [edge / 1000 for edge in edges(own["histogram"])],
            baseline=at,
            fill=True,
            color=style.colour(name),
        )
        axes.plot([own["ns"]["p50"] / 1000] * 2, [at, at + 0.85], color=style.INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, va="bottom")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("µs from before the send until after the receive")
    axes.set_title("Wake-up latency; the line in each is its median")
