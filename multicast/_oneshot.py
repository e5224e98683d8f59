"""A descriptor that says once that another one is ready, and then no more until it is armed again.

Owns an epoll(7) or a kqueue(2) of one descriptor: what an event loop waits on. It has a number of its own, which stays
ours until the loop has let go of it, whatever becomes of the receiver's. Must not know whom it wakes.
"""

from __future__ import annotations

import errno
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class OneShot(Protocol):
        """What an event loop waits on."""

        @property
        def closed(self) -> bool: ...

        def fileno(self) -> int: ...

        def arm(self) -> None:
            """Be ready, once, as soon as the other one is, or is already. Raises OSError if that was closed."""

        def fired(self) -> bool:
            """Return whether it was, and be ready no more: what an event loop is told for ever stops it from idling."""

        def close(self) -> None: ...


class _Epoll:
    def __init__(self, fd: int) -> None:
        self._fd, self._epoll = fd, select.epoll()
        try:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except BaseException:
            self._epoll.close()
            raise
        self.fileno, self.close = self._epoll.fileno, self._epoll.close

    @property
    def closed(self) -> bool:
        return self._epoll.closed

    def arm(self) -> None:
        self._epoll.modify(self._fd, select.EPOLLIN | select.EPOLLONESHOT)

    def fired(self) -> bool:
        return bool(self._epoll.poll(0, 1))


class _Kqueue:
    def __init__(self, fd: int) -> None:
        system: Any = select  # the types know kqueue only on the systems that have it
        self._kqueue = system.kqueue()
        self._event = system.kevent(fd, system.KQ_FILTER_READ, system.KQ_EV_ADD | system.KQ_EV_ONESHOT)
        try:
            self.arm()
        except BaseException:
            self._kqueue.close()
            raise
        self.fileno, self.close = self._kqueue.fileno, self._kqueue.close

    @property
    def closed(self) -> bool:
        return bool(self._kqueue.closed)

    def arm(self) -> None:
        self._kqueue.control([self._event], 0)

    def fired(self) -> bool:
        return bool(self._kqueue.control(None, 1, 0))


def one_shot(fd: int) -> OneShot | None:
    """Return one that is armed, for a descriptor; None where the system has neither. Raises OSError."""
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if hasattr(select, "epoll"):
        return _Epoll(fd)
    if hasattr(select, "kqueue"):
        return _Kqueue(fd)
    return None
