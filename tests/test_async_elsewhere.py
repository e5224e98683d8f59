"""Event loops where there is no epoll, or nothing that a loop could watch: other systems, simulated on this one.

Owns a kqueue made of an epoll, and systems and loops that lack things. Must not claim more than it can: that our part
works with what these systems promise.
"""

import asyncio
import contextlib
import errno
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import anyio
import pytest
from loops import Started, all_of, numbered, numbers, suspended
from net import open_descriptors

pytest_plugins = ["loops_fixtures"]


class Kqueue:
    """As kqueue(2) says of EV_ADD | EV_ONESHOT: an event is told once, then it is gone, unless it is added again."""

    def __init__(self):
        self._epoll = select.epoll()
        self._known = set()
        self.fileno, self.close = self._epoll.fileno, self._epoll.close

    @property
    def closed(self):
        return self._epoll.closed

    def control(self, changes, most, timeout=None):
        assert timeout in (None, 0)
        assert most == 0 or timeout == 0, "it would wait"
        for ident, kind, flags in changes or ():
            assert (kind, flags) == (-1, 1 | 16)
            change = self._epoll.modify if ident in self._known else self._epoll.register
            change(ident, select.EPOLLIN | select.EPOLLONESHOT)
            self._known.add(ident)
        return self._epoll.poll(0, most) if most else []


BSD = SimpleNamespace(kqueue=Kqueue, kevent=lambda *event: event, KQ_FILTER_READ=-1, KQ_EV_ADD=1, KQ_EV_ONESHOT=16)
NEITHER = SimpleNamespace()


@pytest.fixture(params=[BSD, NEITHER], ids=["kqueue", "neither"])
def system(request, multicast, monkeypatch):
    """Another system, as far as what a loop watches goes."""
    monkeypatch.setattr(multicast._oneshot, "select", request.param)
    return request.param


@pytest.fixture
def neither(multicast, monkeypatch):
    monkeypatch.setattr(multicast._oneshot, "select", NEITHER)


@pytest.mark.usefixtures("system")
def test_it_receives_waits_and_ends(opened, run, no_leaked_descriptors):
    async def main():
        rx, far = opened.pipe(batch_size=2)
        async with anyio.create_task_group() as group:
            receiving = Started(group, lambda: all_of(rx))
            for first in range(0, 100, 10):
                await suspended(rx)
                numbered(far, first, first + 10)
                while rx.stats().datagrams < first + 10:
                    await anyio.sleep(0)
            with pytest.raises(RuntimeError, match="another thread or task"):
                await rx.recv_batch_async()
            rx.close()
        assert receiving.got == list(range(100))
        opened.close()

    run(main)


@pytest.mark.usefixtures("system")
def test_timeouts_hold(opened, run):
    rx, far = opened.pipe()

    async def main():
        for seconds in (0.001, 0.05, 0.25):  # also longer than a thread waits at a time
            begin = time.monotonic()
            with pytest.raises(TimeoutError):
                await rx.recv_batch_async(seconds)
            assert time.monotonic() - begin >= seconds
        far.send(b"x")
        assert len(await rx.recv_batch_async(0)) == 1
        with pytest.raises(BlockingIOError):
            await rx.recv_batch_async(0)

    run(main)


@pytest.mark.usefixtures("system")
def test_cancelling_loses_nothing_and_the_receiver_is_usable_at_once(opened, run):
    rx, far = opened.pipe()
    got = []

    async def main():
        for number in range(50):
            with anyio.move_on_after(0.001):
                await rx.recv_batch_async()
            numbered(far, number, number + 1)
            got.extend(numbers(await rx.recv_batch_async()))

    run(main)
    assert got == list(range(50))


@pytest.mark.usefixtures("system")
def test_close_from_another_thread_wakes_it_at_once(opened, run):
    async def main():
        for _ in range(30):
            rx, _ = opened.pipe(timeout=None)
            async with anyio.create_task_group() as group:
                receiving = Started(group, rx.recv_batch_async)
                await suspended(rx)
                threading.Thread(target=rx.close).start()
            assert receiving.error.errno == errno.EBADF
            opened.close()

    begin = time.monotonic()
    run(main)
    assert time.monotonic() - begin < 10


@pytest.mark.usefixtures("system")
def test_on_silence_is_called_while_a_task_waits(opened, feed, run):
    tx = opened.sender(feed)
    rx = opened.receiver(feed, silence=0.05, on_silence=lambda _: tx.send(b"late"))

    async def main():
        assert bytes((await rx.recv_batch_async(None))[0]) == b"late"

    run(main)


def test_what_cannot_be_watched_leaks_nothing(multicast, monkeypatch, no_leaked_descriptors):
    monkeypatch.setattr(multicast._oneshot, "select", BSD)
    closed = 10_000  # no descriptor has this number
    for _ in range(2):
        for number in (closed, -1):
            with pytest.raises(OSError, match="Bad file descriptor"):
                multicast._oneshot.one_shot(number)
        monkeypatch.undo()


# Threads ------------------------------------------------------------------------------------------------------------


class NoReaders(asyncio.SelectorEventLoop):
    """As Windows' default loop is."""

    def add_reader(self, *_):
        raise NotImplementedError


def test_a_loop_that_watches_no_descriptors_waits_in_a_thread(opened, no_leaked_descriptors):
    rx, far = opened.pipe()

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(3):
            loop.call_later(0.01, far.send, b"x")
            assert len(await rx.recv_batch_async()) == 1
        with pytest.raises(TimeoutError):
            await rx.recv_batch_async(0.01)
        loop.call_later(0.01, rx.close)
        with pytest.raises(OSError, match="already closed"):
            await rx.recv_batch_async()

    with asyncio.Runner(loop_factory=NoReaders) as loop:
        loop.run(main())
    opened.close()


def test_a_loop_that_refuses_a_reader_says_why_and_leaks_nothing(opened, no_leaked_descriptors):
    class Refusing(asyncio.SelectorEventLoop):
        def add_reader(self, *_):
            raise PermissionError(errno.EPERM, "no")

    rx, _ = opened.pipe()

    async def main():
        before = open_descriptors().keys()
        with pytest.raises(PermissionError, match="recv_batch_async: Operation not permitted"):
            await rx.recv_batch_async()
        assert open_descriptors().keys() == before

    with asyncio.Runner(loop_factory=Refusing) as loop:
        loop.run(main())
    opened.close()


class Counting(ThreadPoolExecutor):
    """Counts the calls that it has at a time; its threads tell less: it may start one although another is free."""

    def __init__(self):
        super().__init__()
        self.calls, self.most = [], 0

    def submit(self, *args, **kwargs):
        self.calls.append(super().submit(*args, **kwargs))
        self.most = max(self.most, sum(not call.done() for call in self.calls))
        return self.calls[-1]


@pytest.mark.usefixtures("neither")
def test_who_is_cancelled_leaves_one_thread_waiting_at_most(opened, run_asyncio):
    rx, _ = opened.pipe()
    executor, before = Counting(), set(threading.enumerate())

    async def main():
        asyncio.get_running_loop().set_default_executor(executor)
        for _ in range(50):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rx.recv_batch_async(), 0.002)

    run_asyncio(main)
    assert executor.most == 1
    assert not set(threading.enumerate()) - before


def test_a_thread_that_waits_ends_by_what_comes_by_its_time_and_by_close(opened):
    rx, far = opened.pipe()
    begin = time.monotonic()
    rx._wait_ready(0.05)
    assert time.monotonic() - begin >= 0.05
    far.send(b"x")
    rx._wait_ready(60)
    rx.recv_batch(0)
    thread = threading.Thread(target=rx._wait_ready, args=(60,))
    thread.start()
    time.sleep(0.02)
    rx.close()
    thread.join(10)
    assert not thread.is_alive()
    rx._wait_ready(60)
    assert time.monotonic() - begin < 30


def test_the_simulated_kqueue_is_no_better_than_the_real_one():
    """An event is told once, and is not there again before it was added again."""
    near, far = socket.socketpair()
    with near, far, contextlib.closing(Kqueue()) as queue:
        event = (near.fileno(), -1, 17)
        queue.control([event], 0)
        assert queue.control(None, 1, 0) == []
        far.send(b"x")
        assert len(queue.control(None, 1, 0)) == 1
        assert queue.control(None, 1, 0) == []
        assert select.select([queue], [], [], 0)[0] == []
        queue.control([event], 0)
        assert select.select([queue], [], [], 0)[0] == [queue]
