"""Receiving in an event loop: whose turn it is, until when to wait, and that one task at a time does.

Owns what a receiver takes of its loop before others run. Must not hold a batch while a task is suspended: a batch is
received only to be returned at once, so none is lost when the task is cancelled.
"""

from __future__ import annotations

from time import monotonic_ns

from . import _errors
from ._loops import running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ._batch_py import Batch
    from ._loops import LoopWait

    class Receiver(Protocol):
        """Either backend's."""

        _awaited: bool  # a task is suspended until there is something to receive, or until its next turn

        @property
        def closed(self) -> bool: ...

        def fileno(self) -> int: ...

        def _poll_batch(self, operation: str) -> Batch | None: ...

        def _wait_ready(self, seconds: float) -> None: ...


# While datagrams keep coming a receive never waits, so without these no other task of the loop would ever run. A turn
# of the loop costs 10 to 20 µs: 1 ms makes that 1 or 2 %, and is what another task may find itself late by. Those of
# many receivers add up: 16 batches make each one shorter, about 0.5 ms if they are full, and just received.
BATCHES, TURN = 16, 1_000_000  # ns
OPERATION = "recv_batch_async"


class Awaiting:
    """What a receiver knows of the event loop that it is awaited in."""

    def __init__(self) -> None:
        self._left = self._until = 0  # batches, and ns of the monotonic clock, that are left of this turn
        self._wait: LoopWait | None = None

    async def receive(self, receiver: Receiver, timeout: int, iterating: bool) -> Batch:
        """Return the next batch; `timeout` in ns, as `timeout_ns` gives it."""
        now = monotonic_ns()
        if self._left <= 0 or now >= self._until:
            await self._suspend(receiver, None, giving_way=True)
        self._left -= 1
        batch = receiver._poll_batch(OPERATION)
        if batch is None:
            batch = await self._next(receiver, timeout, now + timeout)
            if batch is None:
                raise StopAsyncIteration if iterating else _errors.closed(OPERATION)
        return batch

    async def _next(self, receiver: Receiver, timeout: int, deadline: int) -> Batch | None:
        """Wait for a batch, where there was none; None once the receiver is closed."""
        batch = None
        while batch is None and not receiver.closed:
            if timeout == 0:
                raise _errors.would_block(OPERATION)
            left = None if timeout < 0 else (deadline - monotonic_ns()) / 1e9
            if left is not None and left <= 0:
                raise _errors.timed_out(OPERATION, timeout / 1e9)
            await self._suspend(receiver, left)
            batch = receiver._poll_batch(OPERATION)
        return batch

    async def _suspend(self, receiver: Receiver, seconds: float | None, *, giving_way: bool = False) -> None:
        """Let other tasks run: until something may be there, or just once. After it, another turn begins."""
        if receiver._awaited:
            raise _errors.busy(OPERATION)
        receiver._awaited = True
        try:
            wait = self._wait_here(receiver)
            await (wait.pass_turn() if giving_way else wait.wait(receiver, seconds))
        except OSError as error:
            if error.errno is None:  # a signal handler's own, such as the usual TimeoutError of an alarm
                raise
            if not receiver.closed:  # else it was closed by another thread, amid this
                raise _errors.system(error, OPERATION) from None
        finally:
            receiver._awaited = False
            self._left, self._until = BATCHES, monotonic_ns() + TURN

    def _wait_here(self, receiver: Receiver) -> LoopWait:
        kind, home = running()
        if home is None:
            raise _errors.no_loop(OPERATION)
        wait = self._wait
        if wait is None or wait.home is not home:
            self.close()
            wait = self._wait = kind(home, receiver)
            if receiver.closed:  # asked last: who closes looks for this one after that
                self.close()
        return wait

    def close(self) -> None:
        """Once the receiver is closed: wake the task that waits, and let the loop go. From any thread, and again."""
        wait = self._wait  # another thread may be doing the same
        if wait is not None:
            wait.dismiss()
            self._wait = None

    __del__ = close
