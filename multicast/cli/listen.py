"""`multicast listen`: what comes from feeds, live.

Owns its arguments, the loop that receives and shows, and how it ends. Must not count (`meter`) nor lay out (`picture`).

Drawing is in the receiving thread. A second thread would take the GIL for up to 5 ms at a time (sys.getswitchinterval)
from one that releases it with every system call; a frame of two feeds takes 1 ms, for which the receive buffer lasts.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from typing import TYPE_CHECKING

from .._sequence import NOTATION, parse_sequence
from .arguments import FEED, add_json, feed, seconds, whole
from .dump import FORMS, dumped
from .meter import Meter
from .output import Output
from .picture import frame, line, summary

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    from .._sequence import Sequence
    from ..skt import Batch, Receiver

    Show = Callable[[bool], None]

SUMMARY = "what comes from feeds, live: rates, gaps, losses"
DESCRIPTION = """\
Joins the groups and shows, a row a feed: datagrams and Mbit a second, the mean
batch, the mean and the longest gap between datagrams, what the kernel dropped,
how full the queue is, how many sources there are and, with --sequence, what is
missing. A table on a terminal (with the extra [cli], which brings rich), a line
a second elsewhere. Ctrl-C ends it with a summary. Exit codes: 0, it ended by -c
or -W; 1, a feed failed, or had no data before --timeout, or something was
missing at the end (--fail-on-gap); 130, ended by Ctrl-C."""
EPILOG = """\
examples:
  multicast listen 239.1.1.1:5000                       whatever comes
  multicast listen 10.0.0.7@232.1.1.1:5000%eth0         from one source, on eth0
  multicast listen 239.1.1.1:5000%eth0 239.1.1.2:5000%eth1 --sequence moldudp64
  multicast listen 239.1.1.1:5000 --dump hex -c 10      ten datagrams in hex
"""
RECEIVE_BUFFER = 32 << 20
_FRAMES = 0.25  # seconds between two frames on a terminal
_LONGEST_DATAGRAM = 65_535


def _layout(text: str) -> Sequence:
    import argparse

    try:
        return parse_sequence(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    parser.add_argument("feeds", metavar="FEED", nargs="+", type=feed, help=f"{FEED}; the port is 1234 if left out")
    parser.add_argument("-c", dest="count", type=whole(1), metavar="COUNT", help="stop after so many datagrams in all")
    parser.add_argument("-W", dest="seconds", type=seconds(0.001), metavar="SECONDS", help="stop after so many seconds")
    parser.add_argument(
        "--timeout", type=seconds(0.001), metavar="SECONDS", help="exit with 1 if a feed had no data by then"
    )
    parser.add_argument("--sequence", type=_layout, metavar="LAYOUT", help=f"where the numbers are: {NOTATION}")
    parser.add_argument("--fail-on-gap", action="store_true", help="exit with 1 if a number is missing at the end")
    parser.add_argument(
        "--interval",
        type=seconds(0.1, 3600),
        default=1.0,
        metavar="SECONDS",
        help="how often the numbers are taken (default: 1)",
    )
    parser.add_argument(
        "--receive-buffer",
        type=whole(1, 2**31 - 1),
        default=RECEIVE_BUFFER,
        metavar="BYTES",
        help="to ask the kernel for, of each socket (default: 32 MiB)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--dump", choices=FORMS, help="write the datagrams to stdout instead, and the summary to stderr")
    add_json(form)
    parser.set_defaults(usage_error=parser.error)


def run(given: argparse.Namespace) -> int:
    """Listen."""
    from .. import Poller, open_receiver  # now: those who ask for --help need no backend

    if given.fail_on_gap and given.sequence is None:
        print("multicast listen: --fail-on-gap needs --sequence", file=sys.stderr)
        return 2
    output = Output(as_json=given.json or given.dump is not None)  # what is said then goes to stderr
    meters: list[Meter] = []
    with contextlib.ExitStack() as undo:
        for each in given.feeds:
            try:
                meter = Meter(
                    each,
                    open_receiver,
                    sequence=given.sequence,
                    by_group=given.dump == "hex",
                    receive_buffer=given.receive_buffer,
                    datagram_size=_LONGEST_DATAGRAM if given.dump else 2048,
                )
            except ValueError as error:  # what the notation can't tell: more than one interface could be meant
                given.usage_error(str(error))
            undo.callback(meter.close)
            meters.append(meter)
        poller = undo.enter_context(Poller([each for meter in meters for each in meter.receivers]))
        listening = Listening(given, meters, output)
        try:
            with listening.showing() as show:
                code = listening.receive(poller, show)
        except KeyboardInterrupt:
            code = 130
        except BrokenPipeError:
            raise
        except OSError:  # of waiting, or of where it writes to
            listening.end()
            raise
        listening.end()
    if code == 0 and any(each.error or (given.fail_on_gap and each.missing) for each in meters):
        return 1
    return code


class Listening:
    """One run of the command."""

    def __init__(self, given: argparse.Namespace, meters: list[Meter], output: Output) -> None:
        self.given: argparse.Namespace = given
        self.meters: list[Meter] = meters
        self.output: Output = output
        self.began: float = time.monotonic()
        self.of: dict[Receiver, Meter] = {receiver: meter for meter in meters for receiver in meter.receivers}
        self.left: int | None = given.count
        self._values: list[dict[str, Any]] = []
        self._drawn = False
        self._failures: list[str] = []  # that are still to be told: not amid a picture

    # Receiving

    def receive(self, poller: Any, show: Show) -> int:
        """Receive until it is over; return the exit code."""
        given, began = self.given, self.began
        end = None if given.seconds is None else began + given.seconds
        patience = None if given.timeout is None else began + given.timeout
        tick, draw = began + given.interval, began
        while True:
            now = time.monotonic()
            if now >= tick:
                tick = max(tick + given.interval, now)
                show(True)
                now = draw = time.monotonic()
            elif now >= draw:
                show(False)
            draw = now + _FRAMES if now >= draw else draw
            if patience is not None and now >= patience:
                silent = [str(meter.feed) for meter in self.meters if not (meter.datagrams or meter.error)]
                if silent:
                    self._hint(silent)
                    return 1
                patience = None
            if end is not None and now >= end:
                return 0
            wake = min(each for each in (tick, draw, end, patience) if each is not None)
            while time.monotonic() < wake:
                for receiver in poller.poll(max(0.0, wake - time.monotonic())):
                    self._take(receiver)
                    if self.left == 0:
                        return 0
                if all(meter.error for meter in self.meters):
                    return 1

    def _take(self, receiver: Receiver) -> None:
        meter = self.of[receiver]
        try:
            batch = receiver.recv_batch(0)
        except BlockingIOError:  # what was there was not for this receiver
            return
        except OSError as error:
            if meter.error is None:  # else closed, in the same round, for what another of its receivers met
                meter.fail(error)
                self._failures.append(f"multicast listen: {meter.feed}: {error.strerror}")
                self._tell_failures()
            return
        count = meter.take(receiver, batch, self.left)
        if self.left is not None:
            self.left -= count
        if self.given.dump is not None:
            self._dump(meter, batch, count)

    def _dump(self, meter: Meter, batch: Batch, count: int) -> None:
        pieces = []
        for at in range(count):
            stamp = batch.timestamps[at] if meter.clock == "kernel" else time.time_ns()
            group = batch.destination(at) if meter.by_group else meter.feed.group
            whence, where = _place(*batch.source(at)[:2]), _place(group, meter.feed.port)
            pieces.append(dumped(self.given.dump, bytes(batch[at]), stamp, whence, where, batch.real_lengths[at]))
        sys.stdout.buffer.write(b"".join(pieces))
        sys.stdout.buffer.flush()

    def _hint(self, silent: list[str]) -> None:
        for each in silent:
            print(
                f"multicast listen: nothing came from {each} within {self.given.timeout:g} s; "
                f"`multicast doctor {each}` finds out why",
                file=sys.stderr,
                flush=True,
            )

    def _tell_failures(self) -> None:
        while self._failures and not self._drawn:
            print(self._failures.pop(0), file=sys.stderr, flush=True)

    # Showing

    @contextlib.contextmanager
    def showing(self) -> Iterator[Show]:
        """Give what shows how it goes: called with whether an interval has ended."""
        if self.given.dump is not None:
            yield self._silently
        elif self.given.json:
            yield self._lines
        elif sys.stdout.isatty() and (console := _console()) is not None:
            with _quiet_log(), _ended_by_sigterm(), self._live(console) as draw:
                yield draw
        else:
            yield self._lines

    def _silently(self, ended: bool) -> None:
        pass

    def _lines(self, ended: bool) -> None:
        if not ended:
            return
        for meter in self.meters:
            values = meter.interval()
            self.output.emit(self._object("interval", meter, values))
            if not self.given.json:
                self.output.say(line(meter.row(values)))

    @contextlib.contextmanager
    def _live(self, console: Any) -> Iterator[Show]:
        from rich.live import Live

        self._values = [meter.interval() for meter in self.meters]
        for meter in self.meters:
            meter.history.clear()

        def draw(ended: bool) -> None:
            if ended:
                self._values = [meter.interval() for meter in self.meters]
            live.update(self._frame(console), refresh=True)

        self._drawn = True
        try:
            with Live(self._frame(console), console=console, screen=True, auto_refresh=False) as live:
                yield draw
        finally:
            self._drawn = False

    def _frame(self, console: Any) -> Any:
        rows = [meter.row(values) for meter, values in zip(self.meters, self._values, strict=True)]
        elapsed = int(time.monotonic() - self.began)
        title, size = f"{elapsed // 3600}:{elapsed // 60 % 60:02}:{elapsed % 60:02}  Ctrl-C ends it", console.size
        return frame(rows, title=title, width=size.width, height=size.height)

    def end(self) -> None:
        """Say what came in all, and what failed."""
        self._summary()
        self._tell_failures()

    def _summary(self) -> None:
        for meter in self.meters:
            values = meter.total()
            if self.given.json:
                self.output.emit(self._object("total", meter, values))
            else:
                head, *rest = summary(meter.row(values))
                self.output.say(self.output.paint(head, "strong"))
                for each in rest:
                    self.output.say(each)

    @staticmethod
    def _object(event: str, meter: Meter, values: dict[str, Any]) -> dict[str, Any]:
        return {"event": event, "feed": str(meter.feed), "time": time.time(), "state": meter.state or "joined"} | values


def _console() -> Any:
    """Return rich's console, None where it isn't installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep what the package logs of interfaces off the picture, which says it."""
    log, silent = logging.getLogger("multicast"), logging.NullHandler()
    log.addHandler(silent)
    try:
        yield
    finally:
        log.removeHandler(silent)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the process in order, so that the terminal is left as it was; it ends with 128 + its number."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
