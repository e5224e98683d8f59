"""How many datagrams a receive buffer holds, found out by filling one.

Owns the measuring: a pair of sockets of its own on the loopback interface. Must not touch the socket that is asked
about, but for reading its buffer's size.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from . import _arguments, _errors
from ._options_py import meminfo, set_receive_buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

MEASURED = 8 << 20  # bytes, as the kernel counts them: of a larger buffer no more than this is filled
MOST = 1_000_000  # datagrams
PATIENCE = 5.0  # seconds for all of it; it takes some 50 ms
_LONGEST = 65_507  # bytes of payload over IPv4


def receive_capacity(sock: socket.socket, nbytes: SupportsIndex) -> int:
    """Return how many datagrams of this length the socket's receive buffer holds when nobody reads, at least 1.

    - sock: a UDP socket; neither it nor what it has queued is touched
    - nbytes: the payload of each, 0 to 65507

    Measured and not computed: datagrams are sent to a second socket with as large a buffer, by 127.0.0.1 or ::1 (or
    127.0.0.1 where the host has no ::1), until the kernel drops one. A buffer of over 8 MiB as the kernel counts, which
    is twice what was asked for, is measured by one of 8 MiB and the rest computed in proportion; so is one that this
    process may not ask for (net.core.rmem_max). Computed so, it is one less than some kernels before 6.18 take.

    What the kernel charges is the memory a datagram occupies (its truesize), not its length. A network card's driver
    may use more for each than the loopback interface does, often a page or half of one: take the answer as the most.
    And while the queue is being read, Linux holds back up to a quarter of the buffer until it is empty
    (udp_rmem_release in net/ipv4/udp.c).
    Raises TypeError, ValueError, and OSError: ETIMEDOUT, EADDRNOTAVAIL, ENETUNREACH (the loopback interface is down),
    ENOBUFS (the kernel has no memory left for UDP), ENOPROTOOPT (a kernel before 4.12), ENOSYS (not Linux).
    """
    doing = "receive_capacity"
    checked = _arguments.multicast_socket(sock, doing)
    length = _arguments.whole(nbytes, doing, "nbytes", 0, _LONGEST)
    if sys.platform != "linux":
        raise _errors.linux_only(doing)
    try:
        buffer = checked.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        near, far = _pair(checked.family)
        with near, far:
            granted = _set_buffer(near, min(buffer, MEASURED))
            held, charged, full = _fill(near, far, bytes(length))
    except OSError as error:
        raise _errors.system(error, f"{doing} {length}, by the loopback interface") from None
    if not held:  # not even into an empty buffer, where the kernel takes one of any size
        raise _errors.not_measured(f"{doing} {length}, by the loopback interface", dropped=full)
    if full and granted == buffer:
        return held
    return max(1, buffer * held // charged)


def _pair(family: int) -> tuple[socket.socket, socket.socket]:
    """Return two UDP sockets on the loopback interface, neither of which hears anybody but the other."""
    if family == socket.AF_INET6:
        try:
            return _connected(socket.AF_INET6, "::1")
        except OSError:  # no IPv6, or none on the loopback interface
            pass
    return _connected(socket.AF_INET, "127.0.0.1")


def _connected(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket]:
    with contextlib.ExitStack() as undo:
        near, far = (undo.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        for each in (near, far):
            each.setblocking(False)
            each.bind((host, 0))
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        with contextlib.suppress(BlockingIOError):
            while True:  # what somebody else sent to the port before that
                near.recv(1)
        undo.pop_all()
    return near, far


def _set_buffer(sock: socket.socket, size: int) -> int:
    """Give the socket a buffer of this many bytes as the kernel counts them, twice what it is asked for, or less."""
    set_receive_buffer(sock, size // 2)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _fill(near: socket.socket, far: socket.socket, payload: bytes) -> tuple[int, int, bool]:
    """Send until one is dropped: how many are queued, what they are charged for, and whether it came to that.

    One at a time, each seen to have arrived: those under way could be dropped elsewhere (net.core.netdev_max_backlog),
    uncounted.
    """
    deadline = time.monotonic() + PATIENCE
    dropped, charged = meminfo(near)
    for held in range(MOST):
        far.send(payload)
        while (now := meminfo(near)) == (dropped, charged):  # almost always it is there when send returns
            if time.monotonic() > deadline:
                return held, charged, False
            time.sleep(0.0001)
        if now[0] != dropped:
            return held, charged, True
        _, charged = now
    return MOST, charged, False
