"""What commands print: text for people, in colour on a terminal, or one JSON object a line.

Owns the streams, when there is colour, and how a table is laid out. Must not decide what is said.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO

# SGR codes (ECMA-48, 8.3.117), by what they say
_STYLES = {"good": "32", "warning": "33", "bad": "31", "strong": "1", "faint": "2", "title": "1;36"}
_STYLED = re.compile("\x1b\\[[0-9;]*m")


def coloured(stream: TextIO) -> bool:
    """Whether text on a stream has colour: on a terminal, unless NO_COLOR is set (no-color.org).

    With FORCE_COLOR everywhere; of both, NO_COLOR wins. A variable that is empty is as one that is not set.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Output:
    """Standard output of one command.

    - as_json: whether it is for a program: then it has JSON lines alone, and what is for people goes to standard error
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._text = sys.stderr if as_json else sys.stdout
        self._colour = coloured(self._text)
        self._held = False  # whether a line of `update` is where the next one goes

    @property
    def width(self) -> int | None:
        """How many characters a line of the terminal has; None: there is no terminal, or it does not tell."""
        if not self._text.isatty():
            return None
        try:
            return os.get_terminal_size(self._text.fileno()).columns or None
        except OSError:  # io.UnsupportedOperation is one, too
            return None

    def paint(self, text: str, style: str) -> str:
        """Return text in a style, a name of `_STYLES`, if there is colour."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour else text

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        print(text, file=self._text, flush=True)

    def paragraph(self, text: str) -> None:
        """Print a text for people: on a terminal in lines that fit, broken between words; elsewhere in one line."""
        width = self.width
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if width is not None and lines[-1] and len(_STYLED.sub("", longer)) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        self.say("\n".join(lines))

    def update(self, text: str) -> None:
        """Print a line for people that the next one takes the place of: on a terminal; elsewhere they all stay.

        On a terminal it is without styles, and cut where it is too long: the next one would replace but its last part.
        """
        if not self._text.isatty():
            self.say(text)
            return
        width = self.width
        if width is not None and len(text) >= width:
            text = text[: max(0, width - 2)] + "…"
        print(f"\r{text}\x1b[K", end="", file=self._text, flush=True)
        self._held = True

    def keep(self) -> None:
        """Let the last line of `update` stay."""
        if self._held:
            self._held = False
            self.say()

    def emit(self, values: dict[str, Any]) -> None:
        """Print an object for a program; nothing for people."""
        if self.as_json:
            print(json.dumps(values), flush=True)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> None:
        """Print rows below a head; where a terminal is too narrow for it, each row as lines below its first cell.

        - numbers: which columns end at their right
        """
        right = set(numbers)
        filled = [list(row) for row in rows]
        widths = [max(len(each[at]) for each in (head, *filled)) for at in range(len(head))]

        def line(row: Sequence[str]) -> str:
            cells = (
                each.rjust(width) if at in right else each.ljust(width)
                for at, (each, width) in enumerate(zip(row, widths, strict=True))
            )
            return "  ".join(cells).rstrip()

        if self.width is not None and sum(widths) + 2 * (len(widths) - 1) > self.width:
            for first, *rest in filled:
                self.say(self.paint(first, "strong"))
                for title, cell in zip(head[1:], rest, strict=True):
                    self.say(f"  {title}: {cell}")
            return
        self.say(self.paint(line(head), "strong"))
        for row in filled:
            self.say(line(row))
