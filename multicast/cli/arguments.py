"""Arguments that several commands take: feeds, times, counts, and --json.

Owns how they are read and refused, and their defaults. Must not know a command.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from .._feed import Feed, parse_feed

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_PORT = 1234  # that of mcjoin(1), and of what is played by VLC
FEED = "[SOURCE@]GROUP[+N][:PORT][%%INTERFACE]"


def feed(text: str) -> Feed:
    """Read a feed; one without a port has `DEFAULT_PORT`."""
    try:
        return parse_feed(text, port=DEFAULT_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).partition(": ")[2]) from None


def add_json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Let a command print for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line, instead of text")


def seconds(low: float, high: float = 1e6) -> Callable[[str], float]:
    """Return what reads a time in seconds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from {low:g} to {high:g}")
        return value

    return read


def whole(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """Return what reads an integer; 10k, 2M and 1G are thousands, millions and thousand millions."""

    def read(text: str) -> int:
        scale = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:].lower(), 1)
        digits = text if scale == 1 else text[:-1]
        value = int(digits) * scale if digits.isascii() and digits.isdecimal() and len(digits) < 20 else low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer from {low} to {high}")
        return value

    return read
