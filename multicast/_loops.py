"""Waiting for a receiver in an event loop: of asyncio, which uvloop and anyio use, and of trio.

Owns what a loop is told to watch, and how it is told to stop. Must not import an event loop: whichever runs here is
loaded already. Must not receive: whoever waits is woken, and sees for itself.
"""

from __future__ import annotations

import abc
import contextlib
import math
import os
import sys
import weakref

from ._oneshot import one_shot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator
    from typing import Any

    from ._async import Receiver

SLICE = 0.1  # seconds that a thread waits at a time, where the loop can't: who was cancelled leaves it behind that long


class _Turn:
    """Awaited, it lets the other tasks of an asyncio loop run once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class LoopWait(abc.ABC):
    """How a receiver waits in one event loop, from the first time until it is closed or used in another one.

    - home: the loop, or trio's token of its run
    """

    def __init__(self, home: Any, receiver: Receiver) -> None:
        self.home, self._pid = home, os.getpid()
        self._ready = one_shot(receiver.fileno())  # None: there is nothing that the loop could watch

    @abc.abstractmethod
    async def pass_turn(self) -> None:
        """Let the other tasks of the loop run once."""

    @abc.abstractmethod
    async def wait(self, receiver: Receiver, seconds: float | None) -> None:
        """Wait until there may be something to receive, the receiver is closed, or the time is over."""

    def dismiss(self) -> None:
        """Stop the loop from watching and wake who waits; from any thread, also amid an earlier call."""
        if os.getpid() != self._pid:  # a forked child: what the loop watches is shared with the parent's
            self._let_go()
        elif self._runs_here():
            self._end()
        else:
            try:
                self._post(self._end)
            except RuntimeError:  # that loop is over
                self._let_go()

    def _let_go(self) -> None:
        if self._ready is not None:
            self._ready.close()

    @abc.abstractmethod
    def _end(self) -> None:
        """Do what `dismiss` says, in the loop's own thread."""

    @abc.abstractmethod
    def _runs_here(self) -> bool:
        """Whether this is that thread."""

    @abc.abstractmethod
    def _post(self, call: Callable[[], None]) -> None:
        """Have the loop make a call in its own thread; RuntimeError if it never will."""


class _Sleeper:
    """Who waits, as the loop's reader has it. Nothing else does, so a closed loop leaves no task that never ends."""

    __slots__ = ("__weakref__", "waiter")

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class AsyncioWait(LoopWait):
    """In a loop of asyncio's kind: by one reader that is added once and stays."""

    home: asyncio.AbstractEventLoop

    def __init__(self, home: asyncio.AbstractEventLoop, receiver: Receiver) -> None:
        super().__init__(home, receiver)
        self._asyncio: Any = sys.modules["asyncio"]  # at the interpreter's end nothing can be imported
        sleeper = _Sleeper()
        self._sleeper = weakref.ref(sleeper)  # by the loop alone it lives: the task that it knows has the receiver
        self._thread: asyncio.Future[None] | None = None
        if self._ready is not None:
            try:
                home.add_reader(self._ready.fileno(), self._readable, sleeper)
            except BaseException as error:
                self._let_go()
                if not isinstance(error, NotImplementedError):  # as of the loop that is Windows' default
                    raise
                self._ready = None

    def _readable(self, sleeper: _Sleeper) -> None:
        assert self._ready is not None
        if self._ready.fired():
            sleeper.wake()

    async def pass_turn(self) -> None:
        await _Turn()

    async def wait(self, receiver: Receiver, seconds: float | None) -> None:
        if self._ready is None:
            return await self._wait_in_thread(receiver, seconds)
        sleeper = self._sleeper()
        if self._ready.closed or sleeper is None:
            return None
        self._ready.arm()
        sleeper.waiter = self.home.create_future()
        timer = None if seconds is None else self.home.call_later(seconds, sleeper.wake)
        try:
            await sleeper.waiter
        finally:
            sleeper.waiter = None
            if timer is not None:
                timer.cancel()

    async def _wait_in_thread(self, receiver: Receiver, seconds: float | None) -> None:
        """Have one thread at a time wait, also for who comes after one that was cancelled."""
        if self._thread is None:
            self._thread = self.home.run_in_executor(None, receiver._wait_ready, SLICE)
        await self._asyncio.wait([self._thread], timeout=seconds)
        if self._thread.done():
            ended, self._thread = self._thread, None
            ended.result()

    def _end(self) -> None:
        sleeper = self._sleeper()
        if sleeper is not None:
            sleeper.wake()
        if self._ready is not None and not self._ready.closed:
            self.home.remove_reader(self._ready.fileno())
            self._ready.close()
        # A signal's handler may do this amid the loop's sleep, which goes on after it (PEP 475) if nothing ends it.
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self.home.call_soon_threadsafe(lambda: None)

    def _runs_here(self) -> bool:
        return self._asyncio._get_running_loop() is self.home

    def _post(self, call: Callable[[], None]) -> None:
        self.home.call_soon_threadsafe(call)


class TrioWait(LoopWait):
    """In a run of trio's, which watches a descriptor only while a task waits for it."""

    def __init__(self, home: Any, receiver: Receiver) -> None:
        super().__init__(home, receiver)
        self._trio: Any = sys.modules["trio"]

    async def pass_turn(self) -> None:
        await self._trio.lowlevel.checkpoint()

    async def wait(self, receiver: Receiver, seconds: float | None) -> None:
        trio = self._trio
        with trio.move_on_after(math.inf if seconds is None else seconds):
            if self._ready is None:
                await trio.to_thread.run_sync(receiver._wait_ready, SLICE, abandon_on_cancel=True)
                return
            if not self._ready.closed:
                self._ready.arm()
                with contextlib.suppress(trio.ClosedResourceError):  # by _end()
                    await trio.lowlevel.wait_readable(self._ready.fileno())
            if not self._ready.closed:  # also by a task that ran since it was ready
                self._ready.fired()

    def _end(self) -> None:
        if self._ready is not None and not self._ready.closed:
            self._trio.lowlevel.notify_closing(self._ready.fileno())
            self._ready.close()

    def _runs_here(self) -> bool:
        with contextlib.suppress(RuntimeError):  # no run of trio's is here; in_trio_run() says so, but is newer
            return self._trio.lowlevel.current_trio_token() is self.home
        return False

    def _post(self, call: Callable[[], None]) -> None:
        self.home.run_sync_soon(call)


def _in_trio_task(lowlevel: Any) -> bool:
    """Ask as every trio can be asked; False also for what isn't trio, or is still being imported."""
    ask = getattr(lowlevel, "in_trio_task", None)
    if ask is not None:
        return bool(ask())
    with contextlib.suppress(AttributeError, RuntimeError):
        lowlevel.current_task()
        return True
    return False


def running() -> tuple[type[LoopWait], Any]:
    """Return how to wait in the event loop that runs here, and which it is; (_, None): none that is known does."""
    lowlevel: Any = getattr(sys.modules.get("trio"), "lowlevel", None)
    if _in_trio_task(lowlevel):  # asked first: trio can run as a guest of an asyncio loop
        return TrioWait, lowlevel.current_trio_token()
    asyncio = sys.modules.get("asyncio")
    return AsyncioWait, None if asyncio is None else asyncio._get_running_loop()
