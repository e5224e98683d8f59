"""What any thread may close, and a socket to wait on: how calls come in, wait, are woken, and leave.

Owns the stdlib backend's descriptor and its wake-up, as `_endpoint.pxd` does for the native one. Must not know what is
received or sent.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import os
import select
import socket
import time
import weakref

from . import _errors

__all__ = ["ERROR", "HANGUP", "READABLE", "WRITABLE", "Claim", "Closable", "Endpoint", "Spinning", "final"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as _Socket  # in a class whose own attribute is called socket
    from types import TracebackType
    from typing import NoReturn, Self

_RDHUP = getattr(select, "POLLRDHUP", 0)
READABLE, WRITABLE, ERROR, HANGUP, _WATCHED = 1, 2, 4, 8, 16
HELD_UP = 0.001  # seconds between two looks at a watch that another thread sees to
_TURN = 0.005  # seconds, of one turn of spinning; SPIN_TURN of _endpoint.pxd says why


if TYPE_CHECKING:
    from typing import final
else:

    def final(kind):
        """Make a class that can't be a base, as those of the native backend can't."""

        def refuse(cls, **_):
            raise TypeError(f"type '{kind.__name__}' is not an acceptable base type")

        kind.__init_subclass__ = classmethod(refuse)
        return kind


class Claim:
    """That somebody is inside a call: until it is over, or is no more.

    Held by the call's own frame alone. A signal's handler may raise between any two steps, also between those that
    would end the claim; then it ends with the frame.
    """

    __slots__ = ("__weakref__", "exclusive", "over")

    def __init__(self, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.over = False


class Spinning:
    """For how long one call asks again and again: in turns, between which it polls for what only that shows."""

    def __init__(self, spin: int) -> None:
        self._spin = spin
        self._end: float | None = None

    def turn(self, deadline: float | None) -> float:
        """Return until when the next turn lasts; 0 when the time for that, or the deadline, is over."""
        if not self._spin:
            return 0.0
        now = time.monotonic()
        if self._end is None:
            self._end = math.inf if self._spin < 0 else now + self._spin / 1e9
        until = min(now + _TURN, self._end, math.inf if deadline is None else deadline)
        return until if until > now else 0.0


class Closable:
    """What any thread may close: who is inside a call on it, the last of whom lets go of it."""

    def __init__(self) -> None:
        self._wake, self._alarm = socket.socketpair()
        self._wake.setblocking(False)
        self._alarm.setblocking(False)
        self._lock = _thread.RLock()  # one that a signal's handler can take, too, whatever it came amid
        self._closed = self._retired = False
        self._claims: list[weakref.ref[Claim]] = []
        self._pid = os.getpid()

    def _remember(self) -> None:
        """Keep what may be asked for once the descriptor is gone."""

    def _part(self) -> None:
        """Closed, and the descriptors are there still: leave whoever else waits on them; again, go on with that."""

    def _retire(self) -> None:
        """Closed, and nobody is inside any more: let go."""
        for each in (self._wake, self._alarm):
            with contextlib.suppress(OSError):  # somebody closed it by its number: there is nothing left to let go
                each.close()

    def _ring(self) -> None:
        """End a wait, or the next one."""
        with contextlib.suppress(BlockingIOError):  # it will end: nobody has taken notice of many others yet
            self._alarm.send(b"\0")

    def _inside(self) -> list[Claim]:
        return [claim for each in self._claims if (claim := each()) is not None and not claim.over]

    def _enter(self, claim: Claim, operation: str) -> bool:
        """Begin a call; False if this is closed."""
        if self._pid != os.getpid():
            raise _errors.forked(operation)
        with self._lock:
            if self._closed:
                return False
            inside = self._inside()
            if claim.exclusive and any(each.exclusive for each in inside):
                raise _errors.busy(operation)
            self._claims = [weakref.ref(each) for each in (*inside, claim)]
        return True

    def _leave(self, claim: Claim) -> None:
        """End a call, if it had begun; the last one to leave lets go of what is closed."""
        if self._pid != os.getpid():  # a forked child: none begins here, and the lock may be a parent's thread's
            claim.over = True
            return
        try:
            if self._closed and not self._retired:
                self._part()  # whoever leaves sees to it: a signal's handler may have raised amid the close
        finally:
            claim.over = True
        with self._lock:
            if self._closed and not self._retired and not self._inside():
                self._retire()
                self._retired = True

    def _close(self) -> None:
        if self._pid != os.getpid():  # a forked child: the calls inside are the parent's, and so may be the lock
            self._lock = _thread.RLock()
            if not self._closed:
                self._closed = True
                self._retire()
            return
        claim = Claim(exclusive=False)
        try:
            if self._enter(claim, "close"):
                self._remember()
                with self._lock:
                    if not self._closed:
                        self._closed = True
                        self._ring()
        finally:
            self._leave(claim)

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can't be pickled or copied")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what waits here."""
        self._close()


class Endpoint(Closable):
    """A socket of ours to wait on, and who is inside a call on it."""

    def __init__(self, sock: _Socket) -> None:
        # A duplicate: closing the socket object can't take the descriptor away from a call.
        self._own = socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto)
        try:
            if self._own.gettimeout():  # else receiving would wait for that long before it asks the kernel
                self._own.settimeout(0)
            super().__init__()
        except BaseException:
            self._own.close()
            raise
        self._gate = self._own.fileno()  # what callers are told to wait on: ready when the socket or the watch is
        self._watched = -1  # somebody else's descriptor, to be waited on beside ours
        self._socket = sock

    def _retire(self) -> None:
        with contextlib.suppress(OSError):  # as above
            self._own.close()
        super()._retire()

    def _look(self) -> bool:
        """What is watched beside the socket has something to say: see to it; False if another thread is at that."""
        return True

    def _dismiss(self) -> None:
        """Closed: wake who waits for it elsewhere than inside a call."""

    def _wait(self, writing: bool, deadline: float | None) -> int:
        """Wait until the socket is ready, the endpoint is closed, or the deadline is over: then 0."""
        over = False
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found = self._poll(writing, left)
            watched, found = found & _WATCHED, found & ~_WATCHED
            if watched and not over and not self._look() and not found:
                time.sleep(HELD_UP)
            if found or over:  # however often the watch is ready, the deadline holds
                return found
            over = deadline is not None and time.monotonic() >= deadline
            if over and not watched:  # else looking took until then: what came meanwhile came in time
                return 0

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
        if self._watched >= 0:
            poll.register(self._watched, select.POLLIN)
        found = 0
        for fd, events in poll.poll(None if seconds is None else seconds * 1000):
            if fd == self._watched and events & select.POLLNVAL:  # somebody closed it by its number
                self._watched = -1
            found |= _WATCHED if fd == self._watched else READABLE
            if fd == own:
                found |= (ERROR if events & select.POLLERR else 0) | (HANGUP if events & _RDHUP else 0)
        return found

    def fileno(self) -> int:
        """Return the descriptor to wait on with selectors or an event loop; -1 once closed.

        A receiver's may also be ready when an interface has changed: then there is nothing to receive with timeout=0.
        """
        return -1 if self._closed else self._gate

    def close(self) -> None:
        """Close the socket and wake a call that waits in another thread; again, it does nothing.

        The descriptor is closed once the last call has left it. Batches and views stay as they are.
        """
        self._close()
        self._dismiss()
        self._socket.close()

    @property
    def socket(self) -> _Socket:
        """The socket that it was made with; `close()` closes it."""
        return self._socket
