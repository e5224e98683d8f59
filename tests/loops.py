"""The event loops that a receiver is awaited in: each runs a coroutine function to its end.

Within all of them tests use anyio's tasks, scopes and threads, so that a test is written once.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import sys

import anyio
import trio

DEADLINE = 20  # seconds: what takes so long hangs

LOOPS = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
    "anyio on asyncio": functools.partial(anyio.run, backend="asyncio"),
    "anyio on trio": functools.partial(anyio.run, backend="trio"),
}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = lambda main: uvloop.run(main())

ASYNCIO = [name for name in ("asyncio", "uvloop") if name in LOOPS]


def runner(name: str):
    """What runs a coroutine function in the loop of that name; TimeoutError if it hangs."""

    def run(main):
        async def limited():
            with anyio.fail_after(DEADLINE):
                return await main()

        return LOOPS[name](limited)

    return run


def numbered(far: socket.socket, first: int, last: int) -> None:
    """Send datagrams that have a number each."""
    for number in range(first, last):
        far.send(number.to_bytes(4, "big"))


def numbers(batch) -> list[int]:
    return [int.from_bytes(view, "big") for view in batch]


async def suspended(receiver) -> None:
    """Return once a task waits in a receive."""
    while not receiver._awaited:
        await anyio.sleep(0)
    await anyio.sleep(0.001)  # beyond its turn, if that is what it waits for


class Started:
    """A receive in a task of its own: what it got, or raised."""

    def __init__(self, group, call) -> None:
        self.got, self.error = None, None
        self.over = anyio.Event()
        group.start_soon(self._run, call)

    async def _run(self, call) -> None:
        try:
            self.got = await call()
        except Exception as error:
            self.error = error
        finally:
            self.over.set()


async def all_of(receiver) -> list[int]:
    """Receive until the receiver is closed."""
    got = []
    async for batch in receiver:
        got += numbers(batch)
    return got
