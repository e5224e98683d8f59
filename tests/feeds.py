"""Groups and ports that nobody else on this host tests with: several processes do at a time, of one run and of others.

Owns which share of them this process has: the first that is free, held until the process ends, however it does. Must
not give a port that a system hands out by itself, as it does to each socket that sends: from 32,768 on (ip(7)).
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import socket
import time
from collections.abc import Iterator

SHARES, FIRST_PORT, PORTS = 24, 20_000, 500  # 20,000 to 31,999
FIRST_GROUP = ipaddress.IPv4Address("239.200.0.0")  # a range of 65,536 for each share
FEEDS, FURTHER = 512, 127  # how many groups feeds have, in turn, and how many more there are to each


class NoneLeft(Exception):
    """All shares are held; the text says so."""


def _claimed(number: int) -> socket.socket | None:
    """Return what holds a number for this process, None where another has it: who has bound a port is the only one."""
    claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        claim.bind(("127.0.0.1", FIRST_PORT + number))
    except OSError:
        claim.close()
        return None
    return claim


@functools.cache
def share() -> int:
    """The number of this process's share."""
    for number in range(SHARES):
        if (claim := _claimed(number)) is not None:
            claim.detach()  # the process's end closes it, and nothing before
            return number
    raise NoneLeft(f"{SHARES} processes test on this host already, each with a share of the groups and ports")


@contextlib.contextmanager
def of_the_pages() -> Iterator[None]:
    """Have the groups and ports that the pages' examples name: the same for all, so one process at a time has them."""
    while (claim := _claimed(SHARES)) is None:
        time.sleep(0.02)
    with claim:
        yield


_numbers = itertools.count()


def new_feed() -> tuple[str, int]:
    """A group and a port. No other feed of this run has both, and none of another process has either."""
    number = next(_numbers)
    return str(FIRST_GROUP + (share() << 16) + number % FEEDS), FIRST_PORT + share() * PORTS + number % PORTS


def further(group: str, n: int = 1) -> str:
    """The n-th of the groups that a feed has beside its own."""
    assert 0 < n <= FURTHER
    return str(ipaddress.IPv4Address(group) + n * FEEDS)
