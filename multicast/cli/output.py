"""What commands print: text for people, in colour on a terminal, or one JSON object a line.

Owns the streams, when there is colour, and how a table is laid out. Must not decide what is said.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO

# SGR codes (ECMA-48, 8.3.117), by what they say
_STYLES = {"good": "32", "warning": "33", "bad": "31", "strong": "1", "faint": "2", "title": "1;36"}


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

    def paint(self, text: str, style: str) -> str:
        """Return text in a style, a name of `_STYLES`, if there is colour."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour else text

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        print(text, file=self._text, flush=True)

    def update(self, text: str) -> None:
        """Print a line for people that the next one takes the place of: on a terminal; elsewhere they all stay."""
        over = self._text.isatty()
        print(f"\r{text}\x1b[K" if over else text, end="" if over else "\n", file=self._text, flush=True)

    def keep(self) -> None:
        """Let the last line of `update` stay."""
        if self._text.isatty():
            self.say()

    def emit(self, values: dict[str, Any]) -> None:
        """Print an object for a program; nothing for people."""
        if self.as_json:
            print(json.dumps(values), flush=True)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> None:
        """Print rows below a head.

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

        self.say(self.paint(line(head), "strong"))
        for row in filled:
            self.say(line(row))
