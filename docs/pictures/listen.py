"""Makes listen.svg, beside this file: what `multicast listen` has on a terminal after a minute of feeds.

Owns what is sent meanwhile, by `multicast send`, and the pseudo-terminal that `multicast listen` writes to. Must not
draw: the picture is the last frame that the program wrote. Traffic stays on the loopback interface, TTL 0.

    python3 dev.py pictures listen
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import pty
import random
import re
import select
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence

try:
    from rich import _export_format, terminal_theme
    from rich.console import Console
    from rich.text import Text
except ImportError:
    raise SystemExit("docs/pictures/listen.py: needs rich, which draws: pip install 'multicast-skt[cli]'") from None

from multicast import parse_feed
from multicast._sequence import MOLDUDP64

PICTURE = pathlib.Path(__file__).with_suffix(".svg")
SECONDS = 60.0  # as many as there are bars
COLUMNS, LINES = 84, 24  # so wide that all of the bars have room beside the names
SIZE = 200  # bytes of a datagram
FIRST = "233.252.0.1+5:26400%lo"  # for documentation, RFC 6676: nobody else sends there

# What the feeds are, in this order; numbers are datagrams a second, each for an equal share of the time.
CHANGING = [(3_000, 5_000, 12_000, 20_000, 14_000, 6_000, 9_000, 11_000)]
TWICE = [(2_000,)] * 2  # by two senders at once
IN_STEPS = [(10_000, 4_000, 14_000)]
WITH_GAPS = 1_200
SILENT: list[tuple[int, ...]] = []

_HOME, _LEAVE = "\x1b[H", "\x1b[?1049l"  # the cursor goes to where a frame begins; the screen becomes as it was before
_FONT_FACE = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)  # names a font to fetch, which no code host does


def multicast(*arguments: object) -> list[str]:
    """Return a command line of the program."""
    return [sys.executable, "-P", "-m", "multicast", *map(str, arguments)]


def sent(feed: str, rates: Sequence[int], seconds: float) -> list[list[str]]:
    """Return the commands that send a feed, one after the other."""
    how = ("--size", SIZE, "--sequence", "moldudp64", "--seconds", seconds / len(rates))
    return [multicast("send", feed, *how, "--rate", rate) for rate in rates]


def write_with_gaps(path: pathlib.Path, count: int) -> None:
    """Write numbered datagrams, of which every now and then some are left out."""
    dice, number = random.Random(64), 0
    with path.open("wb") as file:
        for _ in range(count):
            number += 1 if dice.random() < 0.9998 else dice.randint(2, 9)
            datagram = bytearray(SIZE)
            MOLDUDP64.stamp(datagram, number)
            file.write(datagram)


def senders(feeds: Sequence[str], seconds: float, folder: pathlib.Path) -> list[list[list[str]]]:
    """Return what is to run side by side: each the commands that run one after the other."""
    changing, twice, in_steps, with_gaps, silent = feeds
    file = folder / "with-gaps"
    write_with_gaps(file, int(WITH_GAPS * seconds))
    plan = ((changing, CHANGING), (twice, TWICE), (in_steps, IN_STEPS), (silent, SILENT))
    chains = [sent(feed, rates, seconds) for feed, sources in plan for rates in sources]
    return [*chains, [multicast("send", with_gaps, "--file", file, "--size", SIZE, "--rate", WITH_GAPS)]]


@contextlib.contextmanager
def sending(chains: Sequence[Sequence[Sequence[str]]]) -> Iterator[None]:
    """Have commands run as long as this is open; one that has begun comes to its end, which is soon."""
    over = threading.Event()
    codes: list[int] = []

    def play(commands: Sequence[Sequence[str]]) -> None:
        for command in commands:
            codes.append(subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode)
            if over.is_set():
                return

    threads = [threading.Thread(target=play, args=(each,)) for each in chains]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join()
    if any(codes):
        raise SystemExit(f"multicast send ended with {max(codes, key=abs)}")


def read_some(terminal: int, deadline: float) -> bytes:
    """Return what a program wrote to its terminal; empty when it has ended."""
    if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise SystemExit("multicast listen has not ended in time")
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # EIO: nobody has the other side any more, pty(7)
        return b""


def shown(feeds: Sequence[str], seconds: float) -> str:
    """Run `multicast listen` on a terminal while the feeds are sent; return all that it wrote there."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (LINES, COLUMNS))
    hidden = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = multicast("listen", *feeds, "--sequence", "moldudp64", "-W", seconds)
    deadline = time.monotonic() + seconds + 30
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, ours)
        folder = pathlib.Path(undo.enter_context(tempfile.TemporaryDirectory()))
        chains = senders(feeds, seconds, folder)
        listening = undo.enter_context(subprocess.Popen(command, stdin=its, stdout=its, env=environment))
        os.close(its)
        undo.callback(listening.kill)
        written = read_some(ours, deadline)  # the groups are joined: it draws after that
        with sending(chains if written else ()):
            while more := read_some(ours, deadline):
                written += more
        if listening.wait():
            raise SystemExit(f"multicast listen ended with {listening.returncode}")
    return written.decode()


def last_frame(written: str) -> Text:
    """Return the last picture on the screen that the program left at its end."""
    screen, left, _ = written.rpartition(_LEAVE)
    if not left or _HOME not in screen:
        raise SystemExit(f"multicast listen drew nothing: {written[-200:]!r}")
    lines = screen.rpartition(_HOME)[2].replace("\r", "").split("\n")
    frame = Text("\n").join(Text.from_ansi(line) for line in lines)
    frame.rstrip()
    return frame


def as_svg(frame: Text) -> str:
    """Return a frame as rich exports it, but for the fonts that it would have fetched."""
    for word in re.finditer(r"\S+", frame.plain):
        frame.stylize("not blink", *word.span())  # a place of its own in the SVG: columns hold in any font
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(frame, no_wrap=True)
    form = _FONT_FACE.sub("", _export_format.CONSOLE_SVG_FORMAT)
    form = form.replace("<svg ", '<svg width="{width}" height="{height}" ', 1)  # rich leaves it to the page how large
    return console.export_svg(
        title="multicast listen",
        theme=terminal_theme.SVG_EXPORT_THEME,
        code_format=form,
        unique_id="listen",
    )


def make(target: pathlib.Path = PICTURE, seconds: float = SECONDS, feeds: str = FIRST) -> None:
    """Listen, and write the picture.

    - feeds: five groups, as a range
    """
    asked = parse_feed(feeds)
    each = [f"{group}:{asked.port}%{asked.interface}" for group in asked.groups]
    target.write_text(as_svg(last_frame(shown(each, seconds))), "utf-8")


if __name__ == "__main__":
    make()
