"""Receivers that note how long each datagram was on its way: one function a contender, each given a `Job`.

Owns each contender's loop as in `counting.py`, with the clock read right after a receive returned and then the sender's
stamp (the same clock, in ns): what a function returns is the list of the differences.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import opened
from job import STAMP_AT, Job

import multicast

Run = Callable[[Coroutine[Any, Any, list[int]]], list[int]]

now = time.monotonic_ns
stamp = struct.Struct(f"={STAMP_AT}xq").unpack_from


def recv_into(job: Job) -> list[int]:
    delays: list[int] = []
    receive, buffer = job.sock.recv_into, bytearray(job.size)
    job.begin()
    while receive(buffer):
        at = now()
        delays.append(at - stamp(buffer)[0])
    return delays


def multicast_expert(job: Job) -> list[int]:
    delays: list[int] = []
    receive = opened.expert(job).recv
    job.begin()
    while datagram := receive():
        at = now()
        delays.append(at - stamp(datagram)[0])
    return delays


class Protocol(asyncio.DatagramProtocol):
    """Notes the delay of what an event loop hands over."""

    def __init__(self) -> None:
        self.delays: list[int] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at = now()
        self.delays.append(at - stamp(data)[0])


def protocol(job: Job, run: Run) -> list[int]:
    async def receive() -> list[int]:
        noting = Protocol()
        async with opened.endpoint(job, noting):
            return noting.delays

    return run(receive())


def batches(job: Job, **options: object) -> list[int]:
    delays: list[int] = []
    rx = opened.receiver(job, **options)
    job.begin()
    for batch in rx:
        at = now()
        for view in batch:
            delays.append(at - stamp(view)[0])  # noqa: PERF401 - as in the others
    return delays


def callback(job: Job, run: Run) -> list[int]:
    """Receive in what the loop calls, as a protocol does: no task has to be woken."""

    async def receive() -> list[int]:
        delays: list[int] = []

        def take(rx: multicast.Receiver) -> None:
            batch = rx.recv_batch(0)
            at = now()
            for view in batch:
                delays.append(at - stamp(view)[0])  # noqa: PERF401 - as in the others

        async with opened.reader(job, take):
            return delays

    return run(receive())


def batches_async(job: Job, run: Run, **options: object) -> list[int]:
    async def receive() -> list[int]:
        delays: list[int] = []
        rx = opened.receiver_async(job, **options)
        job.begin()
        async for batch in rx:
            at = now()
            for view in batch:
                delays.append(at - stamp(view)[0])  # noqa: PERF401 - as in the others
        return delays

    return run(receive())
