"""Several receivers in one thread, on the selectors module: what `_poller.pxi` does on epoll(7).

Owns which receivers are registered, and whose turn it is. Must not close one, nor receive but in iteration.
"""

from __future__ import annotations

import contextlib
import selectors
import time

from . import _arguments, _errors
from ._endpoint_py import HELD_UP, Claim, Closable, Spinning, final
from ._skt_py import Receiver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import EllipsisType
    from typing import Self, SupportsFloat

    from ._batch_py import Batch

__all__ = ["Poller"]

_LONGEST_WAIT = 86_400.0  # seconds: epoll takes 24 days at most; whoever waits for longer asks again


def _due(timeout: int) -> float | None:
    """Return when waiting for so long (ns) is over; None: never, 0: at once."""
    return None if timeout < 0 else time.monotonic() + timeout / 1e9 if timeout else 0.0


@final
class Poller(Closable):
    """Waits for several receivers at once, in one thread, without asking each (epoll(7), where there is one).

    Poller(receivers=(), *, timeout=None, spin=None)

    - receivers: several, each of which is registered; they stay open when the poller is closed
    - timeout: seconds that `poll` and iteration wait; None: until something comes, 0: not at all
    - spin: seconds for which they ask the kernel again and again before they sleep, math.inf: for as long as they wait;
      None: not at all

    Iterating gives pairs of a receiver and its batch, one of each that is ready before the next of any, until the
    poller is closed or no receiver is registered any more. It raises TimeoutError when nothing came in time,
    BlockingIOError for timeout=0, and what `Receiver.recv_batch` raises, of whichever receiver: the others' turn is
    next.

    A receiver is kept alive while it is registered, its interfaces and its silence are seen to (`open_receiver`), and
    when it is closed it is registered no more. One thread at a time may wait; all else may be done by any, meanwhile.
    Raises TypeError or ValueError for arguments that can't be, and OSError, also as `register` does.
    """

    def __init__(
        self,
        receivers: Iterable[Receiver] = (),
        *,
        timeout: SupportsFloat | None = None,
        spin: SupportsFloat | None = None,
    ) -> None:
        operation = "Poller"
        wait = _arguments.timeout_ns(timeout, operation)
        spinning = _arguments.spin_ns(spin, operation)
        several = _arguments.receivers(receivers, Receiver, Poller, operation)
        if hasattr(self, "_selector"):  # asked last: an argument's own code may have come here, too
            raise _errors.initialised(operation)
        super().__init__()
        self._timeout, self._spin = wait, spinning
        self._watched: dict[Receiver, tuple[int, ...]] = {}  # who is registered, and the descriptors waited on for it
        self._turns: list[Receiver] = []  # who is still to be received from in this round, the next one last
        try:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._wake, selectors.EVENT_READ)
            for receiver in several:
                self._add(receiver, operation)
        except BaseException:
            self._close()
            raise

    def _retire(self) -> None:
        if hasattr(self, "_selector"):
            self._selector.close()
        self._watched.clear()
        self._turns.clear()
        super()._retire()

    # Who is registered

    def _add(self, receiver: Receiver, operation: str) -> None:
        claim, inside = Claim(exclusive=False), Claim(exclusive=False)
        try:
            if not self._enter(claim, operation):
                raise _errors.closed(operation)
            if not receiver._enter(inside, operation):
                raise _errors.receiver_closed(operation)
            receiver._meet(self)  # first: its close then takes back whatever a signal's handler interrupted
            self._watch_for(receiver, operation)
            if receiver._closed:  # and may have been before it was watched
                self._drop(receiver)
        finally:
            receiver._leave(inside)
            self._leave(claim)

    def _watch_for(self, receiver: Receiver, operation: str) -> None:
        with self._lock:
            if receiver in self._watched:
                raise _errors.registered(operation)
            own = (receiver._own.fileno(), receiver._watched)
            try:
                self._watched[receiver] = own[:1] if receiver._watched < 0 else own
                for number, fd in enumerate(self._watched[receiver]):
                    self._selector.register(fd, selectors.EVENT_READ, (receiver, number > 0))
            except BaseException as error:
                self._drop(receiver)
                if not isinstance(error, OSError):
                    raise
                raise _errors.system(error, operation, _errors.epoll_hint(error.errno or 0)) from None
        if not hasattr(self._selector, "fileno"):  # what waits already waits for what it was told when it began
            self._ring()

    def _drop(self, receiver: Receiver) -> bool:
        """Forget a receiver, by a call that is inside of it: whether it was registered."""
        claim = Claim(exclusive=False)
        try:
            if not self._enter(claim, "unregister"):
                return False  # all of them go with the selector
            with self._lock:
                known = receiver in self._watched
                for fd in self._watched.get(receiver, ()):
                    with contextlib.suppress(KeyError):  # a signal's handler had raised amid this before
                        self._selector.unregister(fd)
                self._watched.pop(receiver, None)
                if not self._watched:  # who waits here would wait for ever
                    self._ring()
            return known
        finally:
            self._leave(claim)

    def register(self, receiver: Receiver) -> None:
        """Wait for a receiver, too, from now on, also while another thread waits here.

        It may be registered with several pollers. Raises TypeError for what is no receiver of this backend, ValueError
        for one that is registered already, RuntimeError in a forked child, and OSError: EBADF (the receiver is closed,
        or the poller), ENOSPC (a limit, which is named), ENOMEM.
        """
        self._add(_arguments.receiver(receiver, Receiver, "register"), "register")

    def unregister(self, receiver: Receiver) -> None:
        """Wait for a receiver no more, also while another thread waits here; for one that is closed, do nothing.

        Raises TypeError for what is no receiver of this backend, ValueError for one that is not registered,
        RuntimeError in a forked child, OSError with EBADF once the poller is closed.
        """
        checked = _arguments.receiver(receiver, Receiver, "unregister")
        claim, inside = Claim(exclusive=False), Claim(exclusive=False)
        try:
            if not self._enter(claim, "unregister"):
                raise _errors.closed("unregister")
            known = not checked._enter(inside, "unregister") or self._drop(checked)
            if not known and not (self._closed or checked._closed):  # another thread may have closed either just now
                raise _errors.not_registered("unregister")
        finally:
            checked._leave(inside)
            self._leave(claim)

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, receiver: object, /) -> bool:
        return isinstance(receiver, Receiver) and receiver in self._watched

    # Waiting

    def _woken(self) -> None:
        """Take notice of all that was rung, so that it ends no other wait."""
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass

    def _nothing_left(self) -> bool:
        """Whether nobody is registered. Then that is known, and `fileno()` needs not go on telling of it."""
        with self._lock:
            if self._watched:
                return False
            self._woken()
        return True

    def _look_after(self, receiver: Receiver) -> bool:
        """Have a receiver do what its watch is ready for; False if another thread is at that. Others may receive."""
        claim = Claim(exclusive=False)
        try:
            return not receiver._enter(claim, "poll") or receiver._look()
        finally:
            receiver._leave(claim)

    def _sort_out(self, found: list[tuple[selectors.SelectorKey, int]]) -> list[Receiver]:
        """Do what can be done here, and return the receivers that are ready, as they are after that."""
        held_up = False
        told: list[tuple[Receiver, bool]] = [key.data for key, _ in found if key.data is not None]
        if len(told) < len(found):
            self._woken()
        for receiver, by_watch in told:
            if by_watch and receiver in self._watched and not self._look_after(receiver):
                held_up = True
        ready = [each for each, by_watch in told if not by_watch and each in self._watched]
        if held_up and not ready:
            time.sleep(HELD_UP)
        return ready

    def _wait(self, deadline: float | None) -> list[Receiver] | None:
        """Return the receivers that are ready, [] after the deadline; None if there is nothing to wait for."""
        spinning = Spinning(self._spin if deadline != 0 else 0)
        over = False
        while True:
            if self._closed or self._nothing_left():
                return None
            until = 0.0 if over else spinning.turn(deadline)
            if until:
                found = self._select_until(until)
            else:
                left = None if deadline is None else 0.0 if over else max(0.0, deadline - time.monotonic())
                found = self._selector.select(None if left is None else min(left, _LONGEST_WAIT))
            if not found:
                if until or (not over and (deadline is None or time.monotonic() < deadline)):
                    continue
                return []
            ready = self._sort_out(found)
            if ready or over:  # however often a watch is ready, the deadline holds
                return ready
            # Looking took until then: what came meanwhile came in time.
            over = deadline is not None and time.monotonic() >= deadline

    def _select_until(self, until: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Ask again and again until then."""
        while True:
            last = time.monotonic() >= until
            if (found := self._selector.select(0)) or last:
                return found

    def poll(self, timeout: SupportsFloat | EllipsisType | None = ...) -> list[Receiver]:
        """Return the receivers that are ready, in a list, as soon as there is one; an empty list when none was in time.

        - timeout: seconds to wait, None without end, 0 not at all; left out: the poller's own

        `recv_batch(timeout=0)` of a ready one brings a batch, or raises what is wrong with it. BlockingIOError: there
        was nothing, as of a datagram with a wrong checksum, or of foreign ones alone.
        Raises ValueError when no receiver is registered, also when the last one was closed or unregistered while this
        call waits, as it would never end; RuntimeError while another thread waits here and in a forked child; OSError
        with EBADF once the poller is closed, also meanwhile; and what `on_silence` of a receiver raises.
        """
        wait = self._timeout if timeout is ... else _arguments.timeout_ns(timeout, "poll")
        claim = Claim(exclusive=True)
        try:
            if not self._enter(claim, "poll"):
                raise _errors.closed("poll")
            ready = self._wait(_due(wait))
            if ready is None:
                raise _errors.closed("poll") if self._closed else _errors.nothing_registered("poll")
            return ready
        finally:
            self._leave(claim)

    def __iter__(self) -> Self:
        return self

    def _next(self) -> tuple[Receiver, Batch] | None:
        """Return the next receiver and its batch; None if there is none to wait for."""
        deadline, waited = _due(self._timeout), False
        while True:
            while self._turns:
                receiver = self._turns.pop()
                if receiver in self._watched:
                    try:
                        batch = receiver._next_batch(0, "recv_batch")
                    except BlockingIOError:
                        continue
                    if batch is not None:
                        return receiver, batch
            if waited and deadline is not None and time.monotonic() >= deadline:
                ready: list[Receiver] | None = []  # what is ready brings nothing, and may do so for ever
            else:
                ready = self._wait(deadline)
            if ready is None:
                return None
            if not ready:
                timeout = self._timeout / 1e9
                raise _errors.timed_out("Poller", timeout) if timeout else _errors.would_block("Poller")
            self._turns, waited = ready[::-1], True

    def __next__(self) -> tuple[Receiver, Batch]:
        claim = Claim(exclusive=True)
        try:
            found = self._next() if self._enter(claim, "Poller") else None
        finally:
            self._leave(claim)
        if found is None:
            raise StopIteration
        return found

    # Ending

    def fileno(self) -> int:
        """Return the descriptor to wait on with selectors or an event loop, then to call `poll(0)`; -1 once closed.

        Raises OSError with ENOSYS where the system has none for several (epoll(7) and kqueue are such).
        """
        if self._closed:
            return -1
        if not hasattr(self._selector, "fileno"):
            raise _errors.no_descriptor("fileno")
        number: int = self._selector.fileno()
        return number

    def close(self) -> None:
        """End what waits here in another thread, and forget the receivers, which stay open; again, it does nothing."""
        self._close()

    def __repr__(self) -> str:
        return f"<multicast.Poller {'closed' if self._closed else f'of {len(self)}'}>"
