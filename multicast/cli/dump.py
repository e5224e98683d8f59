"""Datagrams as `multicast listen --dump` writes them: hex, text, or the bytes alone.

Owns these forms. Must not receive.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMS = ("hex", "text", "raw")
_PRINTABLE = bytes(each if 32 <= each < 127 else ord(".") for each in range(256))


def head(stamp_ns: int, source: str, group: str, length: int) -> str:
    """Return the line above a datagram: local time, where it is from and where to, its length."""
    moment = time.strftime("%H:%M:%S", time.localtime(stamp_ns // 10**9))
    return f"# {moment}.{stamp_ns % 10**9:09d} {source} > {group} length {length}"


def hexadecimal(data: bytes) -> Iterator[str]:
    """Give the lines that xxd(1) prints."""
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        yield f"{at:08x}: {row.hex(' ', -2):39}  {row.translate(_PRINTABLE).decode('ascii')}"


def text(data: bytes) -> str:
    """Return the datagram in a line: what is no printable text is escaped, a line's end at its end left out."""
    decoded = data.decode("utf-8", "backslashreplace").removesuffix("\n")
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode("ascii")
        for each in decoded
    )


def dumped(form: str, data: bytes, stamp_ns: int, source: str, group: str, length: int) -> bytes:
    """Return all that is written of a datagram.

    - form: one of FORMS
    - length: its own, where less of it was received
    """
    if form == "raw":
        return data
    if form == "text":
        return text(data).encode() + b"\n"
    return "\n".join([head(stamp_ns, source, group, length), *hexadecimal(data), ""]).encode()
