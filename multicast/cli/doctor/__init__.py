"""`multicast doctor`: why nothing arrives: every step from the network card to Python, and the cause.

Owns the order of the steps and how they are shown. Must change nothing on the host but the join of its own socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

from ..arguments import FEED, add_json, feed, seconds, whole
from ..output import Output

if TYPE_CHECKING:
    import argparse

    from ..._feed import Feed
    from .chains import Packet
    from .facts import Facts, Held
    from .judge import Step
    from .listening import Heard

SUMMARY = "why nothing arrives: each step from the network card to Python"
DESCRIPTION = """\
Looks at every step of a feed's path, listens for a moment, and names the
cause with a command to type next. Each step is ok, warning, wrong, or unseen:
not visible to this process, mostly because that needs root. It changes
nothing. Without a feed: the host alone. Exit code 1: something is wrong, or
nothing arrived. On other systems than Linux it sees less."""
EPILOG = """\
examples:
  multicast doctor
  multicast doctor 239.1.1.1:5000%eth0
  sudo multicast doctor 10.0.0.7@232.1.1.1:5000%eth0 --seconds 130
  multicast doctor 239.1.1.1+50:5000%eth0 --burst 20k --size 1400
  multicast doctor 239.1.1.1:5000%eth0 -c 1 --seconds 30 && ./receiver"""

_MOST = 1 << 30  # bytes: more than any host grants
_BURST = 1000
_MOST_PACKETS = 16  # that are led past a firewall, which may have ten thousand rules
_BATCH = 64  # datagrams: what a receiver takes at once, if it is not told otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    parser.add_argument("feed", nargs="?", type=feed, metavar="FEED", help=FEED)
    parser.add_argument("--seconds", type=seconds(0.1, 3600), default=3.0, help="to listen (default: 3)")
    parser.add_argument("-c", "--count", type=whole(1), help="listen no longer than for this many datagrams")
    parser.add_argument("--burst", type=whole(1, 10**9), help=f"datagrams at once to hold (default: {_BURST}, advice)")
    parser.add_argument("--size", type=whole(0, 65_507), default=1400, help="bytes of each of them (default: 1400)")
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Look, and say what was found."""
    from . import judge

    output = Output(as_json=given.json)
    steps = _steps(given)
    if os.name == "posix" and os.geteuid() == 0:  # who is root needs no sudo, and may have none, as in a container
        for each in steps:
            each.next = each.next.removeprefix("sudo ")
    found = judge.diagnose(steps)
    for each in steps:
        _show(output, each)
    cause = found.cause
    if cause is None:
        output.say(output.paint("diagnosis: nothing is wrong", "good"))
        output.emit({"diagnosis": None, "cause": None, "next": "", "warnings": found.warnings})
        return 0
    output.say(output.paint(f"diagnosis: {cause.found}", "bad"))
    if cause.next:
        output.say(f"next: {cause.next}")
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
    from . import facts as gathering
    from . import judge

    first = judge.backend(BACKEND, BACKEND_REASON, linux=gathering.LINUX)
    facts = gathering.gather(given.feed)
    granted = _granted()
    path = judge.host_links(facts.links) if given.feed is None else _path(facts, given, granted)
    return [first, *path, _buffer(given, granted), *judge.around(facts)]


def _path(facts: Facts, given: argparse.Namespace, granted: int) -> list[Step]:
    from . import facts as gathering
    from . import judge

    asked: Feed = given.feed
    linux = _OnLinux(facts) if gathering.LINUX else None
    failure, heard, held = _heard(facts, given, granted)
    joined = failure is None
    came = heard.came(facts.name, asked.port, asked.source)
    holders = gathering.holders(asked.port) if linux else None
    steps = [judge.interface(facts), judge.port(asked.port, holders, failure)]
    if linux is not None:
        steps += [judge.route(facts)]
    steps += [judge.membership(facts, failure, held)]
    if linux is not None:
        steps += linux.steps(asked, heard, joined=joined, came=came)
    else:
        steps += [judge.Step("host", "unseen", "routes, versions, filters, rules and counters: on Linux alone")]
    return [*steps, judge.received(asked, heard, granted, joined=joined, came=came)]


class _OnLinux:
    """What is looked at before and after listening: rules, which may count, and counters."""

    def __init__(self, facts: Facts) -> None:
        from . import counters
        from .firewall import Rulesets

        self.facts = facts
        self.name = facts.link.name if facts.link else None
        self.rules = Rulesets.read(ipv6=facts.ipv6)
        self.before = counters.read(self.name)

    def steps(self, asked: Feed, heard: Heard, *, joined: bool, came: bool | None) -> list[Step]:
        """Return what stands between the wire and the receiver."""
        from . import counters, judge
        from . import facts as gathering
        from .firewall import Rulesets

        facts, after = self.facts, counters.read(self.name)
        sources = _sources(facts, asked, heard)
        reverse = {each: gathering.route(each) for each in sources}
        rose = after.get(counters.REVERSE_PATH, 0) - self.before.get(counters.REVERSE_PATH, 0)
        packets = _packets(facts, asked, heard, sources)
        obstacles = self.rules.obstacles(packets) if self.rules.readable else None
        later = Rulesets.read(ipv6=facts.ipv6).obstacles(packets) if obstacles else []
        return [
            judge.version(facts, heard),
            judge.rp_filter(facts, reverse, rose, heard, came=came),
            judge.firewall(obstacles, later, came=came),
            judge.wire(facts, asked, heard, joined=joined),
            judge.counters(self.before, after),
        ]


def _sources(facts: Facts, asked: Feed, heard: Heard) -> list[str]:
    """Return who sends: the source that is asked for, or those that were seen."""
    if asked.source is not None:
        return [asked.source]
    wire = {each[2] for each in heard.wire or () if facts.link and (each[0], each[3]) == (facts.link.name, asked.port)}
    return sorted(heard.sources | wire)


def _packets(facts: Facts, asked: Feed, heard: Heard, sources: list[str]) -> list[Packet]:
    """Return a datagram of each group that brought nothing; of many, of some spread over them."""
    from .chains import Packet

    source = sources[0] if len(sources) == 1 else None
    name = facts.link.name if facts.link else None
    silent = [group for group in facts.groups if group not in heard.groups]
    silent = silent[:: -(-len(silent) // _MOST_PACKETS) or 1]
    if heard.received and not heard.groups:  # which group a datagram is of was not told
        silent = []
    return [Packet(group, asked.port, name, source) for group in silent]


def _heard(facts: Facts, given: argparse.Namespace, granted: int) -> tuple[OSError | ValueError | None, Heard, Held]:
    """Join and listen; return why the join failed, None if it did not, what was heard, and what the host held then."""
    from ...skt import open_receiver
    from . import facts as gathering
    from . import listening

    asked: Feed = given.feed
    by_group = asked.count > 1 and gathering.LINUX  # elsewhere the twin can't have it
    columns = ["source", "destination"] if by_group else ["source"]
    try:
        receiver = open_receiver(
            facts.groups,
            asked.port,
            interface=asked.interface,
            source=asked.source,
            columns=columns,
            receive_buffer=granted,
        )
    except (OSError, ValueError) as error:
        return error, listening.Heard(), gathering.Held()
    with receiver:
        held = gathering.held() if gathering.LINUX else gathering.Held()
        found = listening.listen(receiver, facts.groups, given.seconds, most=given.count, by_group=by_group)
        return None, found, held


def _granted() -> int:
    """Return how many bytes of receive buffer any user gets, as they are asked for."""
    asking = _MOST
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while asking > 1:
            with contextlib.suppress(OSError):  # Linux gives what it may, BSD and macOS refuse
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, asking)
                break
            asking //= 2
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2 if sys.platform == "linux" else granted  # the kernel says twice of it, socket(7)


def _buffer(given: argparse.Namespace, granted: int) -> Step:
    from ..._capacity import receive_capacity
    from . import judge

    held = None
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, granted)
        held = receive_capacity(sock, given.size)
    burst = given.burst or _BURST
    return judge.buffer(granted, held, burst, given.size, min(_BATCH, burst), asked=given.burst is not None)
