"""Receivers that count datagrams and do nothing else: one function a contender, each given a `Job`, returns the count.

Owns each contender's loop as its own users write it, with nothing in it that another has not. A loop ends where its own
kind of receiving ends: at a shutdown's empty datagram (the feed has none), or at close().
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import opened
from job import Job

Run = Callable[[Coroutine[Any, Any, int]], int]


def recv_into(job: Job) -> int:
    receive, buffer, count = job.sock.recv_into, bytearray(job.size), 0
    job.begin()
    while receive(buffer):
        count += 1
    return count


def recvfrom_into(job: Job) -> int:
    receive, buffer, count = job.sock.recvfrom_into, bytearray(job.size), 0
    job.begin()
    while receive(buffer)[0]:
        count += 1
    return count


def recvmsg_into(job: Job) -> int:
    receive, buffers, room, count = job.sock.recvmsg_into, [bytearray(job.size)], job.control_size, 0
    job.begin()
    while receive(buffers, room)[0]:
        count += 1
    return count


def multicast_expert(job: Job) -> int:
    receive, count = opened.expert(job).recv, 0
    job.begin()
    while receive():
        count += 1
    return count


def multicast_expert_async(job: Job) -> int:
    async def receive() -> int:
        rx, count = opened.expert_async(job), 0
        job.begin()
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await rx.recv()
                count += 1
        return count

    return asyncio.run(receive())


def spead2(job: Job) -> int:
    stream, count = opened.spead2_stream(job), 0
    job.begin()
    for _ in stream:
        count += 1
    return count


class Protocol(asyncio.DatagramProtocol):
    """Counts what an event loop hands over."""

    def __init__(self) -> None:
        self.count = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.count += 1


def protocol(job: Job, run: Run) -> int:
    async def receive() -> int:
        counting = Protocol()
        async with opened.endpoint(job, counting):
            return counting.count

    return run(receive())


def batches(job: Job, **options: object) -> int:
    """Each is let go before the next is received, so one block of memory serves them all."""
    rx, count = opened.receiver(job, **options), 0
    job.begin()
    for batch in rx:
        count += len(batch)
        del batch
    return count


def views(job: Job, **options: object) -> int:
    rx, count = opened.receiver(job, **options), 0
    job.begin()
    for batch in rx:
        for _ in batch:
            count += 1
    return count


def batches_async(job: Job, run: Run, **options: object) -> int:
    async def receive() -> int:
        rx, count = opened.receiver_async(job, **options), 0
        job.begin()
        async for batch in rx:
            count += len(batch)
            del batch
        return count

    return run(receive())


def views_async(job: Job, run: Run, **options: object) -> int:
    async def receive() -> int:
        rx, count = opened.receiver_async(job, **options), 0
        job.begin()
        async for batch in rx:
            for _ in batch:
                count += 1
        return count

    return run(receive())
