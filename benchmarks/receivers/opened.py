"""Each contender's own kind of receiver on the prepared socket, and how it is ended once the queue is empty.

Owns that, for those that count (`counting.py`) and those that time (`timing.py`). What can't be opened here raises
`Absent`. Must not receive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from job import Absent, Job

import multicast


def receiver(job: Job, **options: Any) -> multicast.Receiver:
    """Open ours; it is closed at the end, which ends its loop."""
    try:
        rx = multicast.Receiver(job.sock, batch_size=job.batch, datagram_size=job.size, **options)
    except TypeError as error:
        raise Absent(str(error)) from None
    job.on_stop(rx.close)
    return rx


def _receiver_in_loop(job: Job, **options: Any) -> multicast.Receiver:
    if not hasattr(multicast.Receiver, "__aiter__"):
        raise Absent("this multicast.Receiver can't be iterated by async for")
    job.sock.setblocking(False)
    return multicast.Receiver(job.sock, batch_size=job.batch, datagram_size=job.size, **options)


def receiver_async(job: Job, **options: Any) -> multicast.Receiver:
    """Open ours inside an event loop; it is closed at the end, which ends what iterates."""
    rx, loop = _receiver_in_loop(job, **options), asyncio.get_running_loop()
    job.on_stop(lambda: loop.call_soon_threadsafe(rx.close))
    return rx


@contextlib.asynccontextmanager
async def reader(job: Job, take: Callable[[multicast.Receiver], None]) -> AsyncIterator[None]:
    """Have the running loop call `take` whenever ours is ready; inside, everything has come."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    with _receiver_in_loop(job) as rx:
        loop.add_reader(rx.fileno(), take, rx)
        job.on_stop(lambda: loop.call_soon_threadsafe(done.set_result, None))
        job.begin()
        await done
        loop.remove_reader(rx.fileno())
        yield


@contextlib.asynccontextmanager
async def endpoint(job: Job, protocol: asyncio.DatagramProtocol) -> AsyncIterator[None]:
    """Have the running loop's own datagram endpoint feed a protocol; inside, everything has come."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    job.sock.setblocking(False)
    transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=job.sock)
    job.on_stop(lambda: loop.call_soon_threadsafe(done.set_result, None))
    job.begin()
    await done
    yield
    transport.close()


def _expert(job: Job, kind: str) -> Any:
    try:
        import multicast_expert as package
    except ImportError as error:
        raise Absent(str(error)) from None
    return getattr(package, kind)(socket.AF_INET, [job.group], job.port, iface="lo")


def _onto(job: Job, rx: Any) -> Any:
    """Let its one descriptor be the prepared socket: it has no way to ask for a receive buffer."""
    (own,) = rx.sockets
    os.dup2(job.sock.fileno(), own.fileno())
    own.setblocking(own.gettimeout() is None)  # the flag is the open file's
    return rx


def expert(job: Job) -> Any:
    """Open multicast_expert's receiver, which waits by select for each datagram."""
    return _onto(job, _expert(job, "McastRxSocket").__enter__())


def expert_async(job: Job) -> Any:
    """Open its class for asyncio, which makes a task for each datagram; uvloop has no sock_recvfrom.

    Once nothing has come for a while, the task that receives is cancelled: no datagram is between two tasks then.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    job.on_stop(lambda: loop.call_soon_threadsafe(loop.call_later, 0.1, task.cancel))
    return _onto(job, _expert(job, "AsyncMcastRxSocket").__enter__())


def spead2_stream(job: Job) -> Iterator[Any]:
    """Open spead2's stream: its own thread receives, decodes SPEAD and hands over heaps.

    It takes nothing but SPEAD, so the feed is that, a heap of one packet each. A heap of a whole packet is the smallest
    that it knows and not what it is made for: it joins many packets to large heaps.
    """
    try:
        import spead2
        import spead2.recv
    except ImportError as error:
        raise Absent(str(error)) from None
    stream = spead2.recv.Stream(
        spead2.ThreadPool(1), spead2.recv.StreamConfig(max_heaps=64), spead2.recv.RingStreamConfig(heaps=1024)
    )
    stream.add_udp_reader(job.sock, max_size=job.size)

    def stop() -> None:
        """Stopping drops what its thread has not handed over."""
        seen = -1
        while seen != stream.stats.heaps:
            seen = stream.stats.heaps
            time.sleep(0.05)
        stream.stop()

    job.on_stop(stop)
    return stream
