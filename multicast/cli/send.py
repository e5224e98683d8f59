"""`multicast send`: datagrams to a feed, at a rate, and how it went.

Owns its arguments, the senders, and the account. Must not hold what is sent (`datagrams`) nor when (`_pacing`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from .. import _arguments, _interfaces, open_sender
from .._pacing import Pacer
from .._sequence import NOTATION, parse_sequence
from .arguments import FEED, add_json, feed, seconds, whole
from .datagrams import Given, Lines, Pieces, Synthetic
from .output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .._feed import Feed
    from .._sequence import Sequence
    from ..skt import Sender
    from .datagrams import Datagrams

SUMMARY = "send arguments, lines, a file or a synthetic feed, at a rate"
DESCRIPTION = """\
Sends datagrams to a group, or to the groups of a range in turns, and says how
it went. Each DATA is a datagram. Without any: a synthetic feed if --rate,
--size, --count, --seconds or --sequence is given, else standard input, a
datagram a line. A SOURCE in the feed is the address to send from, one of this
host's own. TTL 1 unless told, and 0 on the loopback interface. Exit code 1:
not everything could be sent; how much was is said all the same."""
EPILOG = """\
examples:
  multicast send 239.1.1.1:5000%lo hello world
  seq 1000 | multicast send 239.1.1.1:5000%eth0 --rate 100
  multicast send 239.1.1.1:5000%eth0 --file movie.ts --size 1316 --rate 900
  multicast send 10.0.0.7@232.1.1.1+4:5000 --rate 20k --sequence moldudp64"""

RATE = 1000  # of a synthetic feed for which none is set: little for any network
SIZE = 1400  # fits an Ethernet frame, and most tunnels
AT_ONCE = 64  # without a rate
_MOST = {4: 65_507, 6: 65_527}  # bytes of payload, by the IP version: 16 bits of length (RFC 791, RFC 8200, RFC 768)


def rate(text: str) -> int | None:
    """Read a rate; `max` is None: as fast as it goes."""
    return None if text == "max" else whole(1, 10**9)(text)


def sequence(text: str) -> Sequence:
    """Read a layout of sequence numbers."""
    try:
        return parse_sequence(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    parser.add_argument("feed", metavar="FEED", type=feed, help=FEED)
    parser.add_argument("data", metavar="DATA", nargs="*", help="a datagram; - alone: the lines of standard input")
    parser.add_argument("--file", metavar="PATH", help="send a file, in datagrams of --size")
    parser.add_argument(
        "--rate",
        type=rate,
        default=argparse.SUPPRESS,
        help=f"datagrams a second, also as 20k or 1M; max: as fast as it goes (default: {RATE:,} of a synthetic feed, "
        "else max)",
    )
    parser.add_argument(
        "--size", type=whole(0, 65_527), help=f"bytes of each, of a file or of a synthetic feed (default: {SIZE:,})"
    )
    parser.add_argument("--count", type=whole(1), help="end a synthetic feed after so many datagrams")
    parser.add_argument("--seconds", type=seconds(1e-3), help="end a synthetic feed after so long")
    parser.add_argument(
        "--sequence", metavar="LAYOUT", type=sequence, help=f"number a synthetic feed, each group from 1 on: {NOTATION}"
    )
    parser.add_argument("--ttl", type=whole(0, 255), help="how many hops it may go (default: 1; on loopback 0)")
    parser.add_argument(
        "--loopback", action=argparse.BooleanOptionalAction, default=True, help="whether this host's receivers get it"
    )
    parser.add_argument(
        "--segmentation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the kernel gets those of one length that are due together as one train (UDP_SEGMENT)",
    )
    add_json(parser)
    parser.set_defaults(usage_error=parser.error)


class Interrupt:
    """Ctrl-C, where it loses nothing: at once while this waits, else before the next datagrams; twice: at once."""

    def __init__(self) -> None:
        self._came = self._waiting = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._on)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on(self, *_: object) -> None:
        if self._came or self._waiting:
            raise KeyboardInterrupt
        self._came = True

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this is open, nothing is lost by being interrupted."""
        self._waiting = True
        try:
            if self._came:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False


class Account:
    """What was sent, and what kept the rest from it."""

    def __init__(self) -> None:
        self.sent = self.bytes = 0
        self.begun = self.ended = 0  # ns
        self.waits = self.waited_ns = 0  # for room
        self.error: OSError | None = None
        self.interrupted = False


def run(given: argparse.Namespace) -> int:
    """Send, and say how it went."""
    check(given)
    output = Output(as_json=given.json)
    with contextlib.ExitStack() as closing:
        datagrams = opened(given, closing)
        try:
            own, loopback_interface = origin(given.feed)
            ttl = given.ttl if given.ttl is not None else 0 if loopback_interface else 1
            senders = [closing.enter_context(sender(given, group, own, ttl)) for group in given.feed.groups]
        except ValueError as error:  # what the notation can't tell: more than one interface could be meant
            given.usage_error(str(error))
        pacer = None if given.rate is None else Pacer(given.rate)
        account = Account()
        send(datagrams, senders, pacer, account, given.seconds if given.rate is None else None)
    tell(output, given, ttl, account, pacer)
    if account.error is not None:
        before = f"{account.sent:,} datagram{'s were' if account.sent != 1 else ' was'} sent before"
        print(f"multicast send: {given.feed}: {account.error.strerror}; {before}", file=sys.stderr)
        return 1
    return 130 if account.interrupted else 0


def check(given: argparse.Namespace) -> None:
    """End with what was typed that does not go together; else fill in what was left to us."""
    synthetic = [name for name in ("count", "seconds", "sequence") if getattr(given, name) is not None]
    made = synthetic or given.size is not None or hasattr(given, "rate")
    given.synthetic = not given.data and given.file is None and bool(made)
    if given.file is not None and given.data:
        given.usage_error("either DATA or --file")
    if synthetic and not given.synthetic:
        given.usage_error(f"--{synthetic[0]} is for a synthetic feed, without DATA and --file")
    if given.size is not None and given.data:
        given.usage_error("--size is for a file or a synthetic feed")
    if given.file is not None and given.size == 0:
        given.usage_error("--size has to be at least 1 for a file")
    if not (given.data or given.file or given.synthetic) and sys.stdin.isatty():
        given.usage_error("nothing to send: give DATA, -, --file or --rate")
    if not hasattr(given, "rate"):
        given.rate = RATE if given.synthetic else None
    given.size = SIZE if given.size is None else given.size
    given.most = _MOST[6 if ":" in given.feed.group else 4]
    given.data = [os.fsencode(each) for each in given.data]
    lengths = [len(each) for each in given.data] if given.data else [given.size]
    if max(lengths) > given.most:
        given.usage_error(f"{max(lengths):,} bytes are too long: a datagram to this group has {given.most:,} at most")
    if given.sequence is not None and given.size < given.sequence.smallest:
        given.usage_error(f"--sequence {given.sequence.name} needs --size {given.sequence.smallest} or more")
    if given.synthetic and given.seconds is not None and given.rate is not None:
        by_time = max(1, round(given.rate * given.seconds))
        given.count = by_time if given.count is None else min(by_time, given.count)


def origin(wanted: Feed) -> tuple[str | int | None, bool]:
    """Return what to send through or from, for `open_sender`, and whether that is the loopback interface.

    Raises OSError where the feed's source is none of this host's addresses, or of another interface than it names.
    """
    doing = f"send {wanted}"
    if wanted.source is None:
        group = _arguments.group_address(wanted.group, doing)
        index = _interfaces.interface_index(wanted.interface, doing) or _interfaces.route_index(group)
        there = [each for each in _interfaces.interfaces() if each.index == index]
        return wanted.interface, any(each.loopback for each in there)
    place = wanted.source if wanted.interface is None else wanted.interface
    index = _interfaces.interface_index(place, doing)
    through = next(each for each in _interfaces.interfaces() if each.index == index)
    own = [ipaddress.ip_address(each) for each in through.addresses]
    if ipaddress.ip_address(wanted.source) not in own:
        has = ", ".join(through.addresses) or "no address"
        text = f"{doing}: {wanted.source} is no address of {through.name}, which has {has}: nothing is sent from it"
        raise OSError(errno.EADDRNOTAVAIL, text)
    zone = f"%{through.name}" if ipaddress.ip_address(wanted.source).is_link_local and ":" in wanted.source else ""
    return wanted.source + zone, through.loopback


def sender(given: argparse.Namespace, group: str, own: str | int | None, ttl: int) -> Sender:
    """Return what sends to one of the feed's groups; its errors name the feed."""
    feed, options = given.feed, {"loopback": given.loopback, "segmentation": given.segmentation}
    try:
        return open_sender(group, feed.port, interface=own, ttl=ttl, **options)
    except OSError as error:
        raise OSError(error.errno, f"{feed}: {error.strerror}") from None


def opened(given: argparse.Namespace, closing: contextlib.ExitStack) -> Datagrams:
    """Return what is to be sent."""
    if given.synthetic:
        return Synthetic(given.size, given.count, given.sequence, given.feed.count)
    if given.file is not None:
        return Pieces(closing.enter_context(open(given.file, "rb")), given.size)
    if given.data and given.data != [b"-"]:
        return Given(given.data)
    return Lines(sys.stdin.fileno(), given.most)


def send(
    datagrams: Datagrams, senders: list[Sender], pacer: Pacer | None, account: Account, limit: float | None = None
) -> None:
    """Send all of them, or until Ctrl-C or an error, which is in the account then.

    - limit: seconds after which to end
    """
    at_once = AT_ONCE if pacer is None else pacer.batch
    account.begun = account.ended = time.monotonic_ns()
    end = None if limit is None else account.begun + int(limit * 1e9)
    with Interrupt() as interrupt:
        try:
            while end is None or account.ended < end:
                with interrupt.waiting():
                    taken = datagrams.take(at_once)
                    if not taken:
                        break
                    if pacer is not None:
                        if datagrams.waited:
                            pacer.resume()
                        pacer.wait(len(taken))
                _send(taken, senders, account)
                account.ended = time.monotonic_ns()
        except KeyboardInterrupt:
            account.interrupted = True
        except OSError as error:
            account.error = error
    account.waits = sum(each.waits for each in senders)
    account.waited_ns = sum(each.waited_ns for each in senders)


def _send(taken: list[Any], senders: list[Sender], account: Account) -> None:
    """Send datagrams to the groups in turns; those of one group leave together."""
    groups = len(senders)
    first = account.sent
    for offset in range(min(groups, len(taken))):
        sender = senders[(first + offset) % groups]
        left = taken[offset::groups] if groups > 1 else taken
        while left:
            sent = sender.send_batch(left)
            account.sent += sent
            account.bytes += sum(map(len, left[:sent]))
            left = left[sent:]


def tell(output: Output, given: argparse.Namespace, ttl: int, account: Account, pacer: Pacer | None) -> None:
    """Say how it went."""
    took = (account.ended - account.begun) / 1e9
    achieved = None if pacer is None else pacer.achieved()
    late = None if pacer is None else [pacer.lateness(0.5), pacer.lateness(0.99), pacer.longest]
    asked = None if pacer is None else pacer.rate
    error = None if achieved is None or asked is None else 100 * (achieved / asked - 1)
    output.emit(
        {
            "feed": str(given.feed),
            "ttl": ttl,
            "sent": account.sent,
            "bytes": account.bytes,
            "seconds": took,
            "asked_per_second": asked,
            "achieved_per_second": achieved,
            "rate_error_percent": error,
            "batch": None if pacer is None else pacer.batch,
            "late_p50_ns": None if late is None else late[0],
            "late_p99_ns": None if late is None else late[1],
            "late_max_ns": None if late is None else late[2],
            "stalls": None if pacer is None else pacer.stalls,
            "waits": account.waits,
            "waited_ns": account.waited_ns,
            "interrupted": account.interrupted,
            "error": None if account.error is None else account.error.strerror,
        }
    )
    speed = (
        f", {account.sent / took:,.0f}/s, {account.bytes * 8e-6 / took:,.1f} Mbit/s" if took > 0 and not late else ""
    )
    output.say(
        f"{given.feed}: {output.paint(f'{account.sent:,}', 'strong')} datagrams, {account.bytes:,} bytes in "
        f"{took:.3f} s{speed}, TTL {ttl}"
    )
    if pacer is not None and late is not None:
        if achieved is not None:
            output.say(f"rate: {achieved:,.1f}/s of {asked:,}/s asked for ({error:+.4f}%)")
        p50, p99, longest = (f"{each / 1000:,.1f}" for each in late)
        together = "datagrams" if pacer.batch == 1 else f"batches of up to {pacer.batch}"
        output.say(f"late: {together} by {p50} µs (p50), {p99} µs (p99), {longest} µs (max)")
        if pacer.stalls:
            text = f"fell behind {times(pacer.stalls)}, by up to {pacer.longest / 1e6:,.0f} ms"
            output.say(output.paint(f"{text}; what was overdue went without a pause", "warning"))
    if account.waits:
        text = (
            f"waited {times(account.waits)} for room in the kernel's queues, {account.waited_ns / 1e6:,.1f} ms in all"
        )
        output.say(output.paint(text, "warning"))


def times(count: int) -> str:
    """Return how often something was, in words."""
    return "once" if count == 1 else f"{count:,} times"
