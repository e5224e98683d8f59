"""A program that uses the package as README does, and says which type each thing has: read by type checkers, never run.

`python3 dev.py check` gives it to mypy --strict and to pyright.
"""

from __future__ import annotations

import socket
from typing import assert_type

import multicast
from multicast import skt


def receive() -> None:
    with multicast.open_receiver("239.255.64.66", 47_066, interface="lo", timeout=5, columns=["source"]) as rx:
        assert_type(rx, multicast.Receiver)
        assert_type(rx.fileno(), int)
        for batch in rx:
            assert_type(batch, multicast.Batch)
            for view in batch:
                assert_type(view, memoryview[int])
                assert_type(bytes(view[:10]), bytes)
        batch = rx.recv_batch(timeout=0.5)
        assert_type(len(batch), int)
        assert_type(batch[0], memoryview[int])
        assert_type(batch[1:], list[memoryview[int]])
        assert_type(memoryview(batch), memoryview[int])
        assert_type(batch.lengths, memoryview[int])
        assert_type(batch.lengths[0], int)
        assert_type(batch.truncated, memoryview[bool])
        assert_type(batch.timestamps.tolist(), list[int])
        assert_type(batch.drops, memoryview[int])
        assert_type(batch.source(0), tuple[str, int] | tuple[str, int, int, int])
        assert_type(batch.destination(0), str)
        assert_type(rx.stats(), multicast.Stats)
        assert_type(rx.stats().datagrams, int)
        assert_type(rx.stats().drops, int | None)
        assert_type(rx.memberships[0].interface, str | None)


async def await_batches(rx: multicast.Receiver) -> None:
    assert_type(await rx.recv_batch_async(), multicast.Batch)
    async for batch in rx:
        assert_type(batch, multicast.Batch)


def poll(receivers: list[multicast.Receiver]) -> None:
    with multicast.Poller(receivers) as poller:
        assert_type(poller.poll(timeout=1), list[multicast.Receiver])
        for receiver, batch in poller:
            assert_type(receiver, multicast.Receiver)
            assert_type(batch, multicast.Batch)


def send() -> None:
    with multicast.open_sender("239.255.64.66", 47_066, interface="lo", ttl=0) as tx:
        assert_type(tx, multicast.Sender)
        assert_type(tx.send(b"first"), int)
        assert_type(tx.send_batch([b"second", bytearray(b"third"), memoryview(b"fourth")]), int)


def ask() -> None:
    feed = multicast.parse_feed("10.0.0.7@239.1.1.1+3:5000%lo")
    assert_type(feed, multicast.Feed)
    assert_type(feed.source, str | None)
    sock = skt.genSocket()
    assert_type(sock, socket.socket)
    assert_type(multicast.set_receive_buffer(sock, 1 << 20), int)
    assert_type(multicast.interfaces(), list[multicast.Interface])
    assert_type(multicast.interfaces()[0].addresses, tuple[str, ...])
    assert_type(multicast.capabilities().gro, multicast.Capability)
    assert_type(multicast.BACKEND, str)
