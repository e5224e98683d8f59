"""A socket to wait on that another thread may close: how calls come in, wait, are woken, and leave.

Owns the stdlib backend's descriptor and its wake-up, as `_endpoint.pxd` does for the native one. Must not know what is
received or sent.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import socket
import time

from . import _errors

__all__ = ["ERROR", "HANGUP", "READABLE", "WRITABLE", "Endpoint", "final"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as _Socket  # in a class whose own attribute is called socket
    from types import TracebackType
    from typing import NoReturn, Self

_RDHUP = getattr(select, "POLLRDHUP", 0)
READABLE, WRITABLE, ERROR, HANGUP = 1, 2, 4, 8


if TYPE_CHECKING:
    from typing import final
else:

    def final(kind):
        """Make a class that can't be a base, as those of the native backend can't."""

        def refuse(cls, **_):
            raise TypeError(f"type '{kind.__name__}' is not an acceptable base type")

        kind.__init_subclass__ = classmethod(refuse)
        return kind


class Endpoint:
    """A socket of ours to wait on, and who is inside a call on it."""

    def __init__(self, sock: _Socket) -> None:
        # A duplicate: closing the socket object can't take the descriptor away from a call.
        self._own = socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto)
        try:
            if self._own.gettimeout():  # else receiving would wait for that long before it asks the kernel
                self._own.settimeout(0)
            self._wake, self._alarm = socket.socketpair()
        except BaseException:
            self._own.close()
            raise
        self._lock = _thread.allocate_lock()
        self._closed = self._exclusive = False
        self._inside = 0
        self._pid = os.getpid()
        self._socket = sock

    def _remember(self) -> None:
        """Keep what may be asked for once the descriptor is gone."""

    def _retire(self) -> None:
        """Closed, and nobody is inside any more: let go."""
        for each in (self._own, self._wake, self._alarm):
            with contextlib.suppress(OSError):  # somebody closed it by its number: there is nothing left to let go
                each.close()

    def _enter(self, exclusive: bool, operation: str) -> bool:
        """Begin a call; False if the endpoint is closed."""
        if self._pid != os.getpid():
            raise _errors.forked(operation)
        with self._lock:
            if self._closed:
                return False
            if exclusive:
                if self._exclusive:
                    raise _errors.busy(operation)
                self._exclusive = True
            self._inside += 1
        return True

    def _leave(self, exclusive: bool) -> None:
        with self._lock:
            self._inside -= 1
            if exclusive:
                self._exclusive = False
            last = self._closed and self._inside == 0
        if last:
            self._retire()

    def _wait(self, writing: bool, deadline: float | None) -> int:
        """Wait until the socket is ready, the endpoint is closed, or the deadline is over: then 0."""
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found = self._poll(writing, left)
            if found or (deadline is not None and time.monotonic() >= deadline):
                return found

    def _poll(self, writing: bool, seconds: float | None) -> int:
        own, wake = self._own.fileno(), self._wake.fileno()
        if not hasattr(select, "poll"):
            readable, writable, _ = select.select(
                [wake] if writing else [own, wake], [own] if writing else [], [], seconds
            )
            return (READABLE if readable else 0) | (WRITABLE if writable else 0)
        if seconds is not None:
            seconds = min(seconds, 86_400.0)  # poll takes 24 days at most; whoever waits for longer asks again
        poll = select.poll()
        poll.register(own, select.POLLOUT if writing else select.POLLIN | _RDHUP)
        poll.register(wake, select.POLLIN)
        found = 0
        for fd, events in poll.poll(None if seconds is None else seconds * 1000):
            found |= READABLE
            if fd == own:
                found |= (ERROR if events & select.POLLERR else 0) | (HANGUP if events & _RDHUP else 0)
        return found

    def fileno(self) -> int:
        """Return the descriptor to wait on with selectors or an event loop; -1 once closed."""
        return -1 if self._closed else self._own.fileno()

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def close(self) -> None:
        """Close the socket and wake a call that waits in another thread; again, it does nothing.

        The descriptor is closed once the last call has left it. Batches and views stay as they are.
        """
        forked = self._pid != os.getpid()
        with self._lock:
            if self._closed:
                return
            self._remember()
            self._closed = True
            last = self._inside == 0 or forked  # a forked child: the calls inside are the parent's
            if not last:
                self._alarm.send(b"\0")  # under the lock: the last call to leave closes it
        if last:
            self._retire()
        self._socket.close()

    @property
    def socket(self) -> _Socket:
        """The socket that it was made with; `close()` closes it."""
        return self._socket

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can't be pickled or copied")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
