"""`multicast doctor`: why nothing arrives: every step from the network card to Python, and the cause.

Owns the order of the steps and how they are shown. Must change nothing on the host but the join of its own socket.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

from ..arguments import FEED, add_json, feed, seconds, whole
from ..output import Output

if TYPE_CHECKING:
    import argparse

    from ..._feed import Feed
    from .facts import Facts
    from .judge import Step
    from .listening import Heard

SUMMARY = "why nothing arrives: each step from the network card to Python"
DESCRIPTION = """\
Looks at every step of a feed's path, listens for a moment, and names the
cause with what to type next. Each step is ok, warning, wrong, or unseen,
which needs root. It changes nothing. Without a feed: the host alone. Exit
code 1: something is wrong, or nothing arrived. Linux."""
EPILOG = """\
examples:
  multicast doctor
  multicast doctor 239.1.1.1:5000%eth0
  multicast doctor 10.0.0.7@232.1.1.1:5000%eth0 --seconds 10
  multicast doctor 239.1.1.1+50:5000%eth0 --burst 20k --size 1400"""

_MOST = 1 << 30  # bytes: more than any host grants
_BURST = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    parser.add_argument("feed", nargs="?", type=feed, metavar="FEED", help=FEED)
    parser.add_argument("--seconds", type=seconds(0.1, 3600), default=3.0, help="to listen at most (default: 3)")
    parser.add_argument("--burst", type=whole(1, 10**9), help=f"datagrams at once to hold (default: {_BURST}, advice)")
    parser.add_argument("--size", type=whole(0, 65_507), default=1400, help="bytes of each of them (default: 1400)")
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Look, and say what was found."""
    from . import judge

    output = Output(as_json=given.json)
    steps = _steps(given)
    found = judge.diagnose(steps)
    for each in steps:
        _show(output, each)
    cause = found.cause
    if cause is None:
        output.say(output.paint("diagnosis: nothing is wrong", "good"))
        output.emit({"diagnosis": None, "cause": None, "next": "", "warnings": found.warnings})
        return 0
    output.say(output.paint(f"diagnosis: {cause.found}; next: {cause.next}", "bad"))
    output.emit({"diagnosis": cause.found, "cause": cause.step, "next": cause.next, "warnings": found.warnings})
    return 1


def _show(output: Output, step: Step) -> None:
    style = {"ok": "good", "warning": "warning", "wrong": "bad", "unseen": "faint"}[step.verdict]
    output.say(f"{output.paint(step.verdict.ljust(7), style)}  {step.step.ljust(10)}  {step.found}")
    if step.next and step.verdict != "ok":
        output.say(f"{'':21}next: {step.next}")
    output.emit({"step": step.step, "verdict": step.verdict, "found": step.found, "next": step.next})


def _steps(given: argparse.Namespace) -> list[Step]:
    from ... import BACKEND, BACKEND_REASON
    from . import judge

    first = judge.backend(BACKEND, BACKEND_REASON, linux=sys.platform == "linux")
    if sys.platform != "linux":
        return [first, judge.Step("host", "unseen", "what follows is for Linux alone")]
    from . import facts as gathering

    asked: Feed | None = given.feed
    if asked is None:
        facts = gathering.gather([], None, None)
        return [first, *judge.host_links(facts.links), _buffer(given), *judge.around(facts)]
    facts = gathering.gather(asked.groups, asked.source, asked.interface)
    return [first, *_path(facts, asked, given), _buffer(given), *judge.around(facts)]


def _path(facts: Facts, asked: Feed, given: argparse.Namespace) -> list[Step]:
    from . import facts as gathering
    from . import firewall, judge

    name = facts.link.name if facts.link else None
    listed = firewall.ruleset()
    rules = None if listed is None else firewall.could_drop(listed, asked.group, asked.port, name, asked.source)
    before = gathering.counters()
    failure, heard = _heard(facts, asked, given.seconds)
    after = gathering.counters()
    again = firewall.ruleset() if rules and not heard.received else None
    later = [] if again is None else firewall.could_drop(again, asked.group, asked.port, name, asked.source)
    seen = heard.sources | {each[2] for each in heard.wire or () if each[0] == name and each[3] == asked.port}
    sources = {asked.source} if asked.source is not None else seen
    reverse = {each: gathering.route(each) for each in sorted(sources)}
    dropped = "IpExt.IPReversePathFilter"
    return [
        judge.interface(facts),
        judge.route(facts),
        judge.membership(facts, failure),
        judge.version(facts),
        judge.rp_filter(facts, reverse, after.get(dropped, 0) - before.get(dropped, 0)),
        judge.firewall(rules, later, heard),
        judge.wire(facts, asked.port, heard),
        judge.counters(before, after),
        judge.received(heard, joined=failure is None),
    ]


def _heard(facts: Facts, asked: Feed, most: float) -> tuple[str | None, Heard]:
    """Join and listen; return why the join failed, None if it did not, and what was heard."""
    from ...skt import open_receiver
    from . import listening

    try:
        receiver = open_receiver(
            facts.groups, asked.port, interface=asked.interface, source=asked.source, columns="source"
        )
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error), listening.Heard()
    with receiver:
        return None, listening.listen(receiver, facts.groups, most)


def _buffer(given: argparse.Namespace) -> Step:
    from ..._capacity import receive_capacity
    from . import judge

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MOST)  # without privilege: what any user gets
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        held = None
        with contextlib.suppress(OSError):  # the loopback interface is down
            held = receive_capacity(sock, given.size)
    burst = given.burst or _BURST
    return judge.buffer(granted, held, burst, given.size, asked=given.burst is not None)
