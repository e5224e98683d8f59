"""The pages that datagrams are written to: there before the first one, on the node of the thread that opened.

On a machine of one node the latter shows little more than that the kernel is asked right.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
import threading
from pathlib import Path

import huge_pages
import numpy as np
import pytest
from huge_pages import SIZE, mappings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell where a page is")

_MOVE_PAGES = {"x86_64": 279, "aarch64": 239}
BLOCK = {"batch_size": 2, "datagram_size": 65_535}  # of 128 KiB


def nodes_of(begin: int, end: int) -> list[int]:
    """On which node each page of a stretch of memory is; negative where there is none (move_pages(2))."""
    number = _MOVE_PAGES.get(os.uname().machine)
    if number is None:
        pytest.skip(f"the number of {os.uname().machine}'s move_pages is not known here")
    page = mmap.PAGESIZE
    addresses = range(begin // page * page, end, page)
    pages = (ctypes.c_void_p * len(addresses))(*addresses)
    status = (ctypes.c_int * len(addresses))()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, ctypes.c_ulong(len(addresses)), pages, None, status, 0):
        pytest.skip(f"move_pages: {os.strerror(ctypes.get_errno())}")
    return list(status)


def address(buffer) -> int:
    return np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]


def cpus(text: str) -> set[int]:
    """Those of a list as the kernel writes it: 0-3,8."""
    ends = [each.partition("-") for each in text.strip().split(",") if each]
    return {cpu for low, _, high in ends for cpu in range(int(low), int(high or low) + 1)}


def nodes() -> dict[int, set[int]]:
    """The nodes of this machine that this process may run on, and their CPUs."""
    found = {}
    for folder in Path("/sys/devices/system/node").glob("node[0-9]*"):
        usable = cpus((folder / "cpulist").read_text("ascii")) & os.sched_getaffinity(0)
        if usable:
            found[int(folder.name[4:])] = usable
    return found or {0: os.sched_getaffinity(0)}


def opened_on(there: set[int], make):
    """What a thread made that was bound to these CPUs."""
    made = []

    def run():
        os.sched_setaffinity(0, there)
        made.append(make())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]


def test_pages_that_nobody_touched_are_not_there():
    """The canary for the tests below."""
    memory = mmap.mmap(-1, 16 * mmap.PAGESIZE)
    begin = address(memory)
    assert max(nodes_of(begin, begin + len(memory))) < 0


@pytest.mark.parametrize("node", nodes())
def test_the_callers_memory_is_touched_by_the_thread_that_opens(opened_native, node):
    memory = mmap.mmap(-1, 2 * 131_072)
    opened_on(nodes()[node], lambda: opened_native.pipe(**BLOCK, memory=memory))
    begin = address(memory)
    assert {*nodes_of(begin, begin + len(memory))} == {node}


@pytest.mark.parametrize("node", nodes())
def test_huge_pages_are_touched_by_the_thread_that_opens(opened_native, node):
    if not opened_native.package.capabilities().transparent_hugepages:
        huge_pages.unavailable(opened_native.package.capabilities().transparent_hugepages.why)
    before = {each[:2] for each in mappings()}
    opened_on(nodes()[node], lambda: opened_native.pipe(hugepages="transparent"))
    ((begin, end),) = {each[:2] for each in mappings()} - before
    assert end - begin == SIZE
    assert {*nodes_of(begin, end)} == {node}


@pytest.mark.parametrize("node", nodes())
def test_a_receivers_own_memory_is_touched_by_the_thread_that_opens(opened_native, node):
    """And not by the one that receives, to which it shows where it is."""
    rx, tx = opened_on(nodes()[node], lambda: opened_native.pipe(**BLOCK))
    held = []
    for _ in range(2):
        tx.send(b"x")
        held.append(rx.recv_batch())
    for batch in held:
        begin = address(batch)
        assert {*nodes_of(begin, begin + 131_072)} == {node}


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def test_no_page_is_missing_when_the_first_datagrams_come(opened_native):
    payload = bytes(60_000)  # 15 pages
    untouched = mmap.mmap(-1, 4 * 65_536)
    rx, tx = opened_native.pipe(**BLOCK)
    other, far = opened_native.pipe(**BLOCK)
    for _ in range(2):  # once for what the interpreter itself touches for the first time
        before = faults()
        held = []
        for _ in range(2):
            tx.send(payload)
            tx.send(payload)
            held.append(rx.recv_batch())
        missed = faults() - before
        rx, tx = other, far
    assert [len(batch) for batch in held] == [2, 2]
    near = opened_native.closing(rx.socket.dup())
    before = faults()
    far.send(payload)
    near.recv_into(untouched)
    assert faults() - before > 10  # what would have been seen
    assert missed < 5
