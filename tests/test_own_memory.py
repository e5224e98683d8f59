"""Memory of the caller's: the kernel writes datagrams into it, and it is let go when the last view is."""

from __future__ import annotations

import errno
import gc
import mmap
import socket
import weakref

import numpy as np
import pytest

BLOCK = 4 * 128  # of the receivers below: 4 slots of 100 bytes, rounded up to cache lines
OPTIONS = {"batch_size": 4, "datagram_size": 100}


@pytest.mark.parametrize("kind", ["bytearray", "mmap", "numpy"])
def test_datagrams_lie_in_the_callers_memory(opened_native, kind):
    memory = {
        "bytearray": lambda: bytearray(3 * BLOCK),
        "mmap": lambda: mmap.mmap(-1, 3 * BLOCK),
        "numpy": lambda: np.zeros((3, 4, 128), np.uint8),
    }[kind]()
    receiver, sender = opened_native.pipe(**OPTIONS, memory=memory)
    sender.send(b"first")
    sender.send(b"second")
    batch = receiver.recv_batch()
    whole = np.frombuffer(memory, np.uint8)
    for i, expected in enumerate((b"first", b"second")):
        view = np.frombuffer(batch[i], np.uint8)
        assert np.shares_memory(view, whole)
        at = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        assert whole[at : at + len(view)].tobytes() == expected


def test_as_many_blocks_exist_as_fit(opened_native):
    receiver, sender = opened_native.pipe(**OPTIONS, memory=bytearray(4 * BLOCK - 1))
    held = []
    for i in range(3):
        sender.send(b"%d" % i)
        held.append(receiver.recv_batch())
    sender.send(b"3")
    with pytest.raises(BufferError, match=r"all 3 blocks are held .* as many as fit into memory"):
        receiver.recv_batch()
    assert [bytes(batch[0]) for batch in held] == [b"0", b"1", b"2"]
    del held[1]
    assert bytes(receiver.recv_batch()[0]) == b"3"
    assert [bytes(batch[0]) for batch in held] == [b"0", b"2"]


def test_max_blocks_may_say_less(opened_native):
    receiver, sender = opened_native.pipe(**OPTIONS, memory=bytearray(4 * BLOCK), max_blocks=1)
    sender.send(b"1")
    held = receiver.recv_batch()
    with pytest.raises(BufferError, match="all 1 blocks are held"):
        receiver.recv_batch(0)
    assert bytes(held[0]) == b"1"


def test_it_is_in_use_until_the_last_view_is_gone(opened_native):
    memory = bytearray(2 * BLOCK)
    receiver, sender = opened_native.pipe(**OPTIONS, memory=memory)
    sender.send(b"kept")
    view = receiver.recv_batch()[0]
    opened_native.close()
    del receiver
    gc.collect()
    with pytest.raises(BufferError):
        memory.append(0)
    assert bytes(view) == b"kept"
    del view
    memory.append(0)


@pytest.mark.parametrize(
    ("memory", "error", "says"),
    [
        (bytearray(BLOCK - 1), ValueError, "memory has 511 bytes, and one block of batch_size slots takes 512"),
        (bytearray(), ValueError, "memory has 0 bytes"),
        (bytes(BLOCK), BufferError, "memory, a bytes, is not writable or not contiguous"),
        (np.zeros(2 * BLOCK, np.uint8)[::2], BufferError, "memory, a ndarray, is not writable or not contiguous"),
        (BLOCK, TypeError, "memory is a writable buffer or None, not 512"),
        ("x" * BLOCK, TypeError, "memory is a writable buffer or None"),
    ],
)
def test_what_can_not_be_used_is_refused(opened_native, no_leaked_descriptors, memory, error, says):
    with pytest.raises(error, match=f"^Receiver: {says}"):
        opened_native.pipe(**OPTIONS, memory=memory)
    opened_native.close()


def test_memory_that_was_refused_is_free_again(opened_native):
    memory = bytearray(BLOCK - 1)
    with pytest.raises(ValueError, match="takes 512"):
        opened_native.pipe(**OPTIONS, memory=memory)
    gc.collect()
    memory.append(0)
    opened_native.pipe(**OPTIONS, memory=memory)


def test_closed_memory_is_refused(opened_native):
    memory = mmap.mmap(-1, BLOCK)
    memory.close()
    with pytest.raises(BufferError, match=r"memory, a mmap, is not writable or not contiguous: mmap closed"):
        opened_native.pipe(**OPTIONS, memory=memory)


def test_the_stdlib_backend_says_that_it_can_not(multicast, opened, no_leaked_descriptors):
    if multicast.BACKEND == "stdlib":
        with pytest.raises(OSError, match="Receiver: memory: the stdlib backend can't use memory of the") as refused:
            opened.pipe(memory=bytearray(1 << 20))
        assert refused.value.errno == errno.EOPNOTSUPP
    else:
        opened.pipe(memory=bytearray(1 << 20))
    opened.close()


class Memory(bytearray):
    """That can refer to what uses it."""


def test_a_receiver_that_its_memory_refers_to_is_let_go(native, no_leaked_descriptors):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    memory = Memory(2 * BLOCK)
    memory.receiver = native.Receiver(near, **OPTIONS, memory=memory)
    far.send(b"kept")
    batch, gone = memory.receiver.recv_batch(), weakref.ref(memory.receiver)
    near.close()
    far.close()
    del memory
    gc.collect()
    assert bytes(batch[0]) == b"kept"
    del batch
    gc.collect()
    assert gone() is None
