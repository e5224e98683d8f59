"""Socket options that are set together: all of them, or none.

Owns the order of reading, setting and putting back. Must not know what an option is for, nor whether a value is right:
callers do.
"""

from __future__ import annotations

import contextlib
import errno

from . import _errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Option: TypeAlias = tuple[str, int, int]  # how an error calls it, level, name
    Wanted: TypeAlias = tuple[Option, int]  # an option and its value


def read(sock: socket.socket, option: Option, doing: str) -> int | None:
    """Return an option's value; None if this kernel does not give it out."""
    label, level, name = option
    try:
        return sock.getsockopt(level, name)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise _errors.system(error, f"{doing}: {label}") from None
        return None


def set_together(sock: socket.socket, wanted: Sequence[Wanted], doing: str, hint: Callable[[int], str]) -> None:
    """Set options in this order; if one is refused, put those before it back, and raise what the system said.

    - hint: what to add to an error, by its errno

    An option that can't be read can't be put back, so it has to come where nothing after it can fail.
    """
    before = [(option, read(sock, option, doing)) for option, _ in wanted]
    for done, ((label, level, name), value) in enumerate(wanted):
        try:
            sock.setsockopt(level, name, value)
        except OSError as error:
            for option, earlier in reversed(before[:done]):
                _put_back(sock, option, earlier)
            raise _errors.system(error, f"{doing}: {label}={value}", hint(error.errno or 0)) from None


def _put_back(sock: socket.socket, option: Option, earlier: int | None) -> None:
    _, level, name = option
    if earlier is not None:
        with contextlib.suppress(OSError):  # the one to be told of came before this
            sock.setsockopt(level, name, earlier)
