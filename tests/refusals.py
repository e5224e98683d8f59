"""How the tests of bad arguments say what has to be refused, and by which words.

Owns the values that several of them use. Nothing that may succeed there is sent to a network: it joins on the loopback
interface, or the all-hosts group, which no host ever reports (RFC 3376, section 5).
"""

from __future__ import annotations

import socket
import sys

import pytest

GROUP = "239.255.0.1"
GROUP6 = "ff15::239:255"
PORT = 19_999
ALL_HOSTS = "224.0.0.1"
UNASSIGNED = "203.0.113.99"  # TEST-NET-3 (RFC 5737): no interface's address
HUGE = 10 ** (sys.int_info.default_max_str_digits + 1)  # more digits than str() gives
LO = socket.if_nametoindex("lo")
NO_INDEX = 2**31 - 1


def ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6 sockets")


def shown(value: object) -> str:
    """An id for a value in a table."""
    if isinstance(value, int) and abs(value) == HUGE:
        return "HUGE" if value > 0 else "-HUGE"
    text = repr(value).encode("ascii", "backslashreplace").decode()
    return type(value).__name__ if " at 0x" in text else f"{type(value).__name__} {text}"[:60]


def text_of(error: BaseException) -> str:
    """What an exception says, without the errno that OSError puts before it."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def refused(expected, call, *words: str) -> BaseException:
    """Make a call that has to fail: by exactly this type, or with this errno, in a text that has all these words."""
    kind = OSError if isinstance(expected, int) else expected
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    if isinstance(expected, int):
        assert error.errno == expected, error
    else:
        assert type(error) is expected, error
    text = text_of(error)
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return error
