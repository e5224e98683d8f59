"""Slots on huge pages: there when the receiver is open, in whole chunks, and gone with their last holder."""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys

import huge_pages
import numpy as np
import pytest
from huge_pages import SIZE, mappings
from refusals import refused
from seccomp import denied

pytestmark = [
    pytest.mark.alone,  # of huge pages there are so many for all processes
    pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for on Linux alone"),
]

HALF = {"batch_size": 16, "datagram_size": 65_535}  # blocks of 1 MiB: two fill a huge page
ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
MAP_PRIVATE, MAP_ANONYMOUS, MAP_HUGETLB, PROT_NONE = 2, 0x20, 0x40000, 0
MADV_HUGEPAGE, MADV_POPULATE_WRITE = 14, 23
MAPPING = {
    "transparent": ("mmap", {2: PROT_NONE, 3: MAP_PRIVATE | MAP_ANONYMOUS}),
    "reserved": ("mmap", {3: MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB}),
}


@pytest.fixture(params=["transparent", "reserved"])
def kind(request, native):
    """A kind of huge pages, of which there are enough: 4."""
    if request.param == "transparent":
        why = native.capabilities().transparent_hugepages.why
        if why:
            huge_pages.unavailable(why)
        yield request.param
    else:
        with huge_pages.reserved(4):
            yield request.param


@pytest.fixture
def before():
    """What is mapped on huge pages without the test; nothing more after it."""
    gc.collect()
    found = mappings()
    yield found
    gc.collect()
    assert {each[:2] for each in mappings()} == {each[:2] for each in found}


def own(before) -> list[huge_pages.Mapping]:
    """What has been mapped since."""
    known = {each[:2] for each in before}
    return sorted(each for each in mappings() if each[:2] not in known)


# Where the datagrams lie -------------------------------------------------------------------------------------------


def test_every_page_is_there_before_the_first_datagram(before, opened_native, kind):
    opened_native.pipe(hugepages=kind)
    (mapping,) = own(before)
    assert mapping.begin % SIZE == 0
    assert mapping.end - mapping.begin == mapping.present == SIZE
    opened_native.close()


def test_datagrams_lie_on_huge_pages(before, opened_native, kind):
    rx, tx = opened_native.pipe(hugepages=kind)
    (mapping,) = own(before)
    assert mapping.huge == SIZE
    tx.send(b"here")
    at = np.frombuffer(rx.recv_batch()[0], np.uint8).__array_interface__["data"][0]
    assert mapping.begin <= at < mapping.end
    assert at % 64 == 0
    rx.close()


def test_chunks_come_as_blocks_are_held_and_every_byte_is_right(before, opened_native, kind):
    rx, tx = opened_native.pipe(hugepages=kind, **HALF)
    held = []
    for i in range(7):
        tx.send(bytes([i]) * 1000)
        held.append(rx.recv_batch())
        stats = rx.stats()
        assert stats.blocks == max(2, i + 1)
        assert stats.slot_memory == stats.huge_memory == SIZE * (i // 2 + 1)
    assert sum(each.huge for each in own(before)) == 4 * SIZE
    assert [bytes(batch[0]) for batch in held] == [bytes([i]) * 1000 for i in range(7)]
    rx.close()


def test_blocks_that_came_back_are_used_again(before, opened_native, kind):
    rx, tx = opened_native.pipe(hugepages=kind, **HALF)
    for _ in range(50):
        held = []
        for _ in range(4):
            tx.send(b"x")
            held.append(rx.recv_batch())
    stats = rx.stats()
    assert (stats.blocks, stats.slot_memory) == (4, 2 * SIZE)
    del held
    rx.close()


@pytest.mark.parametrize(
    ("options", "pages"),
    [
        ({"batch_size": 1, "datagram_size": 1, "max_blocks": 1}, 1),
        ({"batch_size": 33, "datagram_size": 65_535, "max_blocks": 1}, 2),  # 2.06 MiB
        ({"batch_size": 33, "datagram_size": 65_535}, 3),  # two of them, in fewer pages than each by itself
        ({"batch_size": 64, "gro": True, "max_blocks": 1}, 2),
    ],
)
def test_chunks_are_of_as_many_whole_pages_as_two_blocks_take(before, opened_native, kind, options, pages):
    if "gro" in options:
        sock = opened_native.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        rx = opened_native.closing(opened_native.package.Receiver(sock, hugepages=kind, **options))
    else:
        rx, _ = opened_native.pipe(hugepages=kind, **options)
    assert rx.stats().slot_memory == pages * SIZE
    rx.close()


def test_max_blocks_holds_as_ever(before, opened_native, kind):
    rx, tx = opened_native.pipe(hugepages=kind, max_blocks=3)
    held = []
    for i in range(3):
        tx.send(bytes([i]))
        held.append(rx.recv_batch())
    tx.send(b"\3")
    with pytest.raises(BufferError, match="recv_batch: all 3 blocks are held"):
        rx.recv_batch()
    del held[0]
    assert bytes(rx.recv_batch()[0]) == b"\3"
    del held
    rx.close()


def test_an_open_receiver_of_a_group_has_them_too(before, opened_native, feed, kind):
    rx, tx = opened_native.pair(feed, hugepages=kind)
    tx.send(b"to the group")
    assert bytes(rx.recv_batch()[0]) == b"to the group"
    assert rx.stats().huge_memory == SIZE
    rx.close()


# How they go -------------------------------------------------------------------------------------------------------


def test_they_stay_as_long_as_a_view_and_no_longer(before, opened_native, kind):
    rx, tx = opened_native.pipe(hugepages=kind)
    tx.send(b"kept")
    view = rx.recv_batch()[0]
    rx.close()
    assert len(own(before)) == 1
    assert rx.stats().slot_memory == rx.stats().huge_memory == SIZE
    assert view == b"kept"
    del view
    assert own(before) == []
    assert (rx.stats().blocks, rx.stats().slot_memory, rx.stats().huge_memory) == (0, 0, 0)


def test_closing_lets_them_go_if_nobody_holds_any(before, opened_native, kind):
    rx, _ = opened_native.pipe(hugepages=kind)
    rx.close()
    assert own(before) == []
    assert rx.stats().slot_memory == 0


def test_a_receiver_that_nobody_closed_lets_them_go(before, native, kind):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        rx = native.Receiver(near, hugepages=kind)
        far.send(b"kept")
        batch = rx.recv_batch()
        del rx
        gc.collect()
        assert len(own(before)) == 1
        assert bytes(batch[0]) == b"kept"
        del batch
        gc.collect()
        assert own(before) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_view_in_a_forked_child_stays_as_it_is(before, opened_native, kind):
    """Its pages are copied when the parent's are written to, huge ones as others (fork(2))."""
    rx, tx = opened_native.pipe(hugepages=kind, batch_size=1)
    tx.send(b"before the fork")
    batch = rx.recv_batch()
    go, ready = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.close(ready)
        os.read(go, 1)
        os._exit(0 if bytes(batch[0]) == b"before the fork" else 1)
    os.close(go)
    del batch
    for _ in range(10):
        tx.send(b"after the fork!")
        assert bytes(rx.recv_batch()[0]) == b"after the fork!"
    os.close(ready)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    rx.close()


# What is refused ---------------------------------------------------------------------------------------------------

ANY = ("Receiver", "open_receiver")


def call(package, operation, **options):
    """Open with a socket, or a group, that would be refused next: the options have to be looked at before."""
    if operation == "Receiver":
        return lambda: package.Receiver(None, **options)
    return lambda: package.open_receiver("239.255.0.1", 1, interface="lo", timeout="none", **options)


@pytest.mark.parametrize("value", [True, 1, b"reserved", ["reserved"], object()])
@pytest.mark.parametrize("operation", ANY)
def test_what_is_no_text_is_a_type_error(multicast, operation, value):
    words = f'{operation}: hugepages is None, "transparent" or "reserved", not '
    refused(TypeError, call(multicast, operation, hugepages=value), words)


@pytest.mark.parametrize("value", ["", "Transparent", "reserved ", "2M", "never", "\ud800", "x" * 9999])
@pytest.mark.parametrize("operation", ANY)
def test_another_word_is_a_value_error(multicast, operation, value):
    words = f'{operation}: hugepages is None, "transparent" or "reserved", not '
    refused(ValueError, call(multicast, operation, hugepages=value), words)


@pytest.mark.parametrize("value", ["transparent", "reserved"])
@pytest.mark.parametrize("operation", ANY)
def test_not_together_with_memory_of_your_own(multicast, operation, value):
    words = f"{operation}: hugepages is for the receiver's own memory"
    refused(ValueError, call(multicast, operation, hugepages=value, memory=bytearray(1 << 20)), words)


def test_no_socket_is_made_for_a_word_that_can_not_be(multicast, monkeypatch):
    made = []
    monkeypatch.setattr(multicast.skt, "_new_socket", lambda *_, **__: made.append(1))
    refused(ValueError, lambda: multicast.open_receiver("239.255.0.1", 9, interface="lo", hugepages="big"), "'big'")
    assert made == []


def test_the_stdlib_backend_says_that_it_can_not(multicast, opened, no_leaked_descriptors):
    if multicast.BACKEND == "stdlib":
        words = "Receiver: hugepages: the stdlib backend keeps datagrams in bytes"
        refused(errno.EOPNOTSUPP, lambda: opened.pipe(hugepages="transparent"), words)
    else:
        opened.pipe(hugepages="transparent")
    opened.close()


def test_where_no_page_is_free_the_sysctl_is_named(before, opened_native, no_leaked_descriptors):
    with huge_pages.steady():
        number = huge_pages.reserved_pages()
        many = {"batch_size": 1024, "datagram_size": 65_535, "max_blocks": 1}  # 64 MiB
        refusal = refused(
            errno.ENOMEM,
            lambda: denied(
                lambda: opened_native.pipe(hugepages="reserved", **many), (*MAPPING["reserved"], errno.ENOMEM)
            ),
            "Receiver: hugepages='reserved': mapping 32 huge pages of 2048 KiB: Cannot allocate memory",
            f"vm.nr_hugepages (now {number})",
            "32 more would have to be free",
        )
    assert isinstance(refusal, OSError)
    opened_native.close()


REFUSALS = {
    "transparent: mapping": ("transparent", (*MAPPING["transparent"], errno.ENOMEM), "Cannot allocate memory"),
    "transparent: advice": (
        "transparent",
        ("madvise", {2: MADV_HUGEPAGE}, errno.EINVAL),
        "Invalid argument; this kernel has no transparent huge pages",
    ),
    "transparent: touching": ("transparent", ("madvise", {2: MADV_POPULATE_WRITE}, errno.ENOMEM), "Cannot allocate"),
    "reserved: mapping": ("reserved", (*MAPPING["reserved"], errno.EPERM), "Operation not permitted"),
    "reserved: touching": (
        "reserved",
        ("madvise", {2: MADV_POPULATE_WRITE}, errno.EFAULT),
        "Bad address; those that are free this thread may not use",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_the_kernel_refuses_leaves_nothing_mapped(before, opened_native, no_leaked_descriptors, what):
    kind, denial, words = REFUSALS[what]
    with huge_pages.reserved(1) if what == "reserved: touching" else huge_pages.steady():
        refused(
            denial[2],
            lambda: denied(lambda: opened_native.pipe(hugepages=kind), denial),
            f"Receiver: hugepages={kind!r}: mapping 1 huge page of 2048 KiB: {words}",
        )
        assert own(before) == []
    opened_native.close()


def test_an_older_kernel_is_not_asked_for_pages_and_they_are_there(before, opened_native, kind):
    rx, _ = denied(lambda: opened_native.pipe(hugepages=kind), ("madvise", {2: MADV_POPULATE_WRITE}, errno.EINVAL))
    assert [each.present for each in own(before)] == [SIZE]
    rx.close()


def test_a_chunk_that_can_not_be_had_later_loses_nothing(before, opened_native, kind):
    rx, tx = opened_native.pipe(hugepages=kind, **HALF)
    held = []
    for i in range(2):
        tx.send(b"%d" % i)
        held.append(rx.recv_batch())
    tx.send(b"2")
    refused(
        errno.ENOMEM,
        lambda: denied(rx.recv_batch, (*MAPPING[kind], errno.ENOMEM)),
        f"recv_batch: hugepages={kind!r}: mapping 1 huge page of 2048 KiB: Cannot allocate memory",
    )
    assert rx.stats().blocks == 2
    held.append(rx.recv_batch())
    assert [bytes(batch[0]) for batch in held] == [b"0", b"1", b"2"]
    del held
    rx.close()


def test_reserved_pages_can_be_used_up(before, opened_native):
    """By the kernel's own refusal, not by a denied call."""
    with huge_pages.reserved(1):
        number = huge_pages.reserved_pages()
        rx, tx = opened_native.pipe(hugepages="reserved", **HALF)
        refused(
            errno.ENOMEM,
            lambda: opened_native.pipe(hugepages="reserved"),
            f"Receiver: hugepages='reserved': mapping 1 huge page of 2048 KiB: Cannot allocate memory; "
            f"vm.nr_hugepages (now {number}) is how many there are for all processes, and 1 more would have to be free",
        )
        tx.send(b"goes on")
        assert bytes(rx.recv_batch()[0]) == b"goes on"
        rx.close()
    opened_native.close()


@pytest.mark.parametrize(("kind", "name"), [("transparent", "_TRANSPARENT"), ("reserved", "_MEMINFO")])
def test_a_system_that_tells_no_size_has_none(before, opened_native, no_leaked_descriptors, monkeypatch, kind, name):
    module = opened_native.package.skt._backend._hugepages
    for path in ("/nonexistent", "/dev/null", "/proc/self/comm"):
        monkeypatch.setattr(module, name, path)
        words = f"Receiver: hugepages={kind!r}: {path} tells no size"
        refused(errno.EOPNOTSUPP, lambda: opened_native.pipe(hugepages=kind), words)
    opened_native.close()


# What is told ------------------------------------------------------------------------------------------------------


def test_stats_tell_how_much_the_slots_take(opened):
    rx, tx = opened.pipe(batch_size=4, datagram_size=100)
    held = []
    for _ in range(3):
        tx.send(b"x")
        held.append(rx.recv_batch())
        stats = rx.stats()
        assert stats.slot_memory == stats.blocks * 4 * 128
        assert stats.huge_memory is None


def test_nothing_is_asked_for_a_receiver_without_huge_pages(opened_native, monkeypatch):
    asked = []
    monkeypatch.setattr(opened_native.package.skt._backend._hugepages, "huge_bytes", asked.append)
    rx, _ = opened_native.pipe()
    rx.stats()
    assert asked == []
    rx, _ = opened_native.pipe(hugepages="transparent")
    rx.stats()
    assert len(asked) == 1


def test_what_the_system_does_not_tell_is_none(before, opened_native, monkeypatch):
    rx, _ = opened_native.pipe(hugepages="transparent")
    for path in ("/nonexistent", "/proc/self/mem"):
        monkeypatch.setattr(opened_native.package.skt._backend._hugepages, "_MAPPINGS", path)
        assert rx.stats().huge_memory is None
        assert rx.stats().slot_memory == SIZE
    rx.close()


def test_small_pages_are_not_called_huge(before, opened_native):
    """The kernel takes the advice and does nothing, as it does where transparent huge pages are switched off."""
    rx, _ = denied(
        lambda: opened_native.pipe(hugepages="transparent"),
        ("madvise", {2: MADV_HUGEPAGE}, 0),
        ("madvise", {2: MADV_POPULATE_WRITE}, errno.EINVAL),
    )
    with open(ENABLED, encoding="ascii") as file:
        always = "[always]" in file.read()
    assert rx.stats().slot_memory == SIZE
    assert rx.stats().huge_memory == (SIZE if always else 0)
    rx.close()


def test_each_receiver_is_told_of_its_own(before, opened_native, kind):
    first, _ = opened_native.pipe(hugepages=kind)
    second, far = opened_native.pipe(hugepages=kind, **HALF)
    held = []
    for _ in range(3):
        far.send(b"x")
        held.append(second.recv_batch())
    assert (first.stats().huge_memory, second.stats().huge_memory) == (SIZE, 2 * SIZE)
    del held
    opened_native.close()
