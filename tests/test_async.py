"""Receiving in an event loop: asyncio's, uvloop's, trio's, and anyio's on both; what waits, and whose turn it is."""

import asyncio
import collections
import contextlib
import errno
import math
import socket
import sys
import threading
import time
from importlib import import_module
from types import SimpleNamespace

import anyio
import pytest
import trio
from loops import ASYNCIO, LOOPS, Started, all_of, numbered, numbers, runner, suspended

pytest_plugins = ["loops_fixtures"]


# What comes ---------------------------------------------------------------------------------------------------------


def test_async_for_gives_all_batches_until_the_receiver_is_closed(opened, run):
    rx, far = opened.pipe(batch_size=8)

    async def main():
        async with anyio.create_task_group() as group:
            receiving = Started(group, lambda: all_of(rx))
            for first in range(0, 1000, 20):
                numbered(far, first, first + 20)
                await anyio.sleep(0)
            while rx.stats().datagrams < 1000:
                await anyio.sleep(0)
            rx.close()
        assert receiving.got == list(range(1000))

    run(main)


def test_multicast_comes_too(opened, feed, run):
    rx, tx = opened.pair(feed, columns="source")

    async def main():
        tx.send(b"there already")
        batch = await rx.recv_batch_async()
        assert (bytes(batch[0]), batch.source(0)[0]) == (b"there already", tx.socket.getsockname()[0])
        async with anyio.create_task_group() as group:
            receiving = Started(group, rx.recv_batch_async)
            await suspended(rx)
            tx.send(b"waited for")
        assert [bytes(view) for view in receiving.got] == [b"waited for"]

    run(main)


def test_what_is_awaited_is_a_coroutine_that_starts_tasks(opened, run_asyncio):
    rx, far = opened.pipe()

    async def main():
        task = asyncio.create_task(rx.recv_batch_async())
        await suspended(rx)
        far.send(b"x")
        assert len(await task) == 1
        far.send(b"y")
        assert len(await asyncio.wait_for(rx.recv_batch_async(), 10)) == 1
        far.send(b"z")
        assert len(await anext(rx)) == 1

    run_asyncio(main)


def test_errors_come_out_of_the_await(opened, run):
    rx, far = opened.pipe(max_blocks=1)
    shut, _ = opened.pipe()

    async def main():
        far.send(b"x")
        batch = await rx.recv_batch_async()
        far.send(b"y")
        with pytest.raises(BufferError, match="recv_batch_async: all 1 blocks are held"):
            await rx.recv_batch_async()
        del batch
        assert len(await rx.recv_batch_async()) == 1
        async with anyio.create_task_group() as group:
            receiving = Started(group, shut.recv_batch_async)
            await suspended(shut)
            shut.socket.shutdown(socket.SHUT_RD)
        assert receiving.error.errno == errno.ESHUTDOWN
        with pytest.raises(OSError, match="recv_batch_async: the socket was shut down"):
            await anext(shut)

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="IP_RECVERR is Linux's")
def test_a_message_on_the_error_queue_is_an_error_and_no_endless_loop(multicast, run):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    nobody.bind(("127.0.0.1", 0))
    port = nobody.getsockname()
    nobody.close()

    async def main():
        async with anyio.create_task_group() as group:
            receiving = Started(group, rx.recv_batch_async)
            await suspended(rx)
            sock.sendto(b"x", port)
        assert isinstance(receiving.error, ConnectionRefusedError)
        with pytest.raises(OSError, match="error queue") as caught:
            await rx.recv_batch_async()
        assert caught.value.errno == errno.ENOMSG

    with multicast.Receiver(sock) as rx:
        run(main)


# Timeouts -----------------------------------------------------------------------------------------------------------


def test_timeouts_mean_what_they_mean_to_recv_batch(opened, run):
    own, far = opened.pipe(timeout=0.02)
    nonblocking, _ = opened.pipe(timeout=0)

    async def raised(awaitable):
        begin = time.monotonic()
        with pytest.raises(OSError, match="recv_batch_async: nothing ") as caught:
            await awaitable
        return type(caught.value), caught.value.errno, time.monotonic() - begin

    async def main():
        for call, seconds in ((own.recv_batch_async, 0.02), (own.__anext__, 0.02)):
            kind, number, took = await raised(call())
            assert (kind, number) == (TimeoutError, errno.ETIMEDOUT)
            assert took >= seconds
        for seconds in (0.0001, 0.001, 0.05):
            kind, number, took = await raised(own.recv_batch_async(seconds))
            assert (kind, number) == (TimeoutError, errno.ETIMEDOUT)
            assert took >= seconds
        for call in (lambda: own.recv_batch_async(0), nonblocking.recv_batch_async, nonblocking.__anext__):
            assert (await raised(call()))[:2] == (BlockingIOError, errno.EAGAIN)
        with anyio.move_on_after(0.1) as scope:
            await own.recv_batch_async(timeout=None)
        assert scope.cancelled_caught
        far.send(b"x")
        assert len(await own.recv_batch_async(0)) == 1

    run(main)


@pytest.mark.parametrize("timeout", ["1", -1, math.nan, True])
def test_a_timeout_that_cannot_be_is_refused_at_once(opened, timeout):
    rx, _ = opened.pipe()
    with pytest.raises((TypeError, ValueError)) as plain:
        rx.recv_batch(timeout)
    with pytest.raises(plain.type) as caught:
        rx.recv_batch_async(timeout)
    assert str(caught.value) == str(plain.value).replace("recv_batch", "recv_batch_async", 1)


def test_the_deadline_holds_however_often_it_is_woken(opened, run, multicast, monkeypatch):
    """As by a watch that is ready again and again."""
    rx, _ = opened.pipe()
    always, other = socket.socketpair()
    opened.closing(always)
    opened.closing(other).send(b"x")
    original = multicast._loops.one_shot
    monkeypatch.setattr(multicast._loops, "one_shot", lambda _: original(always.fileno()))

    async def main():
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            await rx.recv_batch_async(0.05)
        assert 0.05 <= time.monotonic() - begin < 5

    run(main)


# One at a time ------------------------------------------------------------------------------------------------------


def test_a_second_consumer_is_refused_and_the_first_goes_on(opened, run):
    rx, far = opened.pipe()

    async def main():
        async with anyio.create_task_group() as group:
            receiving = Started(group, rx.recv_batch_async)
            await suspended(rx)
            for call in (rx.recv_batch_async, rx.__anext__):
                with pytest.raises(RuntimeError, match="recv_batch_async: another thread or task"):
                    await call()
            for call in (lambda: rx.recv_batch(0), lambda: next(rx)):
                with pytest.raises(RuntimeError, match="recv_batch: another thread or task"):
                    call()
            far.send(b"for the first")
        assert [bytes(view) for view in receiving.got] == [b"for the first"]

    run(main)


def test_a_task_is_refused_while_another_has_given_way(opened, run):
    rx, far = opened.pipe(batch_size=1)
    errors = []

    async def main():
        async with anyio.create_task_group() as group:
            turns = Started(group, lambda: all_of(rx))
            far.send(b"x")
            while not errors:
                while not rx._awaited:
                    far.send(b"x")
                    await anyio.sleep(0)
                with pytest.raises(RuntimeError, match="another thread or task"):
                    await rx.recv_batch_async()
                errors.append(1)
            rx.close()
        assert turns.error is None

    run(main)


def test_a_task_is_refused_while_a_thread_receives(opened, run):
    rx, far = opened.pipe(timeout=None)

    async def main():
        thread = threading.Thread(target=rx.recv_batch)
        thread.start()
        with pytest.raises(RuntimeError, match="another thread or task"):
            while True:
                with contextlib.suppress(TimeoutError):  # before the thread is inside
                    await rx.recv_batch_async(0.001)
        far.send(b"for the thread")
        thread.join(10)

    run(main)


def test_where_no_event_loop_runs_it_says_so(opened):
    rx, far = opened.pipe()
    for call in (rx.recv_batch_async, rx.__anext__):
        with pytest.raises(RuntimeError, match="recv_batch_async: no event loop of asyncio or trio runs here"):
            call().send(None)
    far.send(b"x")
    assert len(rx.recv_batch(0)) == 1


# Cancelling ---------------------------------------------------------------------------------------------------------


def test_cancelling_loses_no_datagram(opened, run):
    """A thread sends all the while; the task that receives is cancelled wherever it happens to be."""
    rx, far = opened.pipe(batch_size=2)
    count, got, scopes = 5000, [], 0

    async def receive(scope):
        with scope:
            while True:
                got.extend(numbers(await rx.recv_batch_async()))

    async def main():
        nonlocal scopes
        sender = threading.Thread(target=numbered, args=(far, 0, count))
        sender.start()
        while len(got) < count:
            scopes += 1
            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()
                group.start_soon(receive, scope)
                for _ in range(scopes % 7):
                    await anyio.sleep(0)
                if scopes % 3 == 0:
                    await anyio.sleep(0.0002)
                scope.cancel()
        sender.join(10)

    run(main)
    assert got == list(range(count))
    assert scopes > 10


def test_a_task_that_is_cancelled_when_it_is_about_to_wake_leaves_what_came(opened, run_asyncio):
    rx, far = opened.pipe()

    async def main():
        for turns in range(6):
            task = asyncio.create_task(rx.recv_batch_async())
            await suspended(rx)
            far.send(b"x")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                batch = await task
            except asyncio.CancelledError:
                batch = await rx.recv_batch_async(0)
            assert len(batch) == 1
            with pytest.raises(BlockingIOError):
                await rx.recv_batch_async(0)

    run_asyncio(main)


# The loop's other tasks ---------------------------------------------------------------------------------------------


async def turns_of_others(rx, work, batches):
    """How often another task has its turn while so many batches are received, of a queue that is never empty."""
    turns = 0

    async def ticker():
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    async with anyio.create_task_group() as group:
        group.start_soon(ticker)
        await anyio.sleep(0)
        turns = 0
        async for _ in rx:
            work()
            batches -= 1
            if not batches:
                break
        group.cancel_scope.cancel()
    return turns


def test_others_have_their_turn_after_some_batches(opened, run, multicast, monkeypatch):
    """However fast they are."""
    monkeypatch.setattr(multicast._async, "TURN", 10**15)
    rx, far = opened.pipe(batch_size=1)
    far.send(b"x")
    turns = run(lambda: turns_of_others(rx, lambda: far.send(b"x"), 1600))
    assert 99 <= turns <= 101


def test_others_have_their_turn_after_some_time(opened, run):
    """However few batches that is."""
    rx, far = opened.pipe(batch_size=1)
    far.send(b"x")

    def work():
        far.send(b"x")
        time.sleep(0.0015)

    turns = run(lambda: turns_of_others(rx, work, 50))
    assert turns >= 49


# One registration ---------------------------------------------------------------------------------------------------


def counting_loop(base, counts):
    """A loop that counts what is asked of it."""

    class Counting(base):
        def add_reader(self, *arguments):
            counts["add"] += 1
            return super().add_reader(*arguments)

        def remove_reader(self, *arguments):
            counts["remove"] += 1
            return super().remove_reader(*arguments)

    return Counting


@pytest.mark.parametrize("name", ASYNCIO)
def test_a_reader_is_added_once_and_removed_when_the_receiver_is_closed(opened, name):
    counts = collections.Counter()
    kind = counting_loop(import_module("uvloop").Loop if name == "uvloop" else asyncio.SelectorEventLoop, counts)
    rx, far = opened.pipe()

    async def main():
        for _ in range(100):
            asyncio.get_running_loop().call_soon(far.send, b"x")
            await rx.recv_batch_async()
            with pytest.raises(TimeoutError):
                await rx.recv_batch_async(0.0001)
        assert counts == {"add": 1}
        rx.close()
        assert counts == {"add": 1, "remove": 1}

    with asyncio.Runner(loop_factory=kind) as loop:
        loop.run(main())
    assert counts == {"add": 1, "remove": 1}


def test_a_timeout_that_was_not_needed_is_forgotten(opened):
    timers = []

    class Timing(asyncio.SelectorEventLoop):
        def call_later(self, *arguments):
            timers.append(super().call_later(*arguments))
            return timers[-1]

    rx, far = opened.pipe()

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(3):
            # Not before the second turn: a receive that gives others one finds nothing after it, and has to wait.
            loop.call_soon(loop.call_soon, far.send, b"x")
            await rx.recv_batch_async(60)

    with asyncio.Runner(loop_factory=Timing) as loop:
        loop.run(main())
    assert [timer.cancelled() for timer in timers] == [True] * 3


def test_what_comes_while_nobody_waits_wakes_the_loop_once_at_most(opened, run_asyncio, multicast, monkeypatch):
    """Else a loop would spin for as long as the receiver's task does something else."""
    woken = []
    original = multicast._loops.AsyncioWait._readable
    monkeypatch.setattr(multicast._loops.AsyncioWait, "_readable", lambda *each: (woken.append(1), original(*each)))
    rx, far = opened.pipe()

    async def main():
        for stops in (True, False):
            if stops:  # so that the loop still watches
                with pytest.raises(TimeoutError):
                    await rx.recv_batch_async(0.001)
            woken.clear()
            for _ in range(20):
                far.send(b"x")
                await asyncio.sleep(0.002)
            assert len(woken) <= 1
            assert len(await rx.recv_batch_async(0)) == 20
        async with anyio.create_task_group() as group:
            receiving = Started(group, rx.recv_batch_async)
            await suspended(rx)
            far.send(b"y")
        assert len(receiving.got) == 1

    run_asyncio(main)


def test_a_receiver_can_be_used_in_one_loop_after_another(opened, no_leaked_descriptors):
    rx, far = opened.pipe()

    async def main():
        async with anyio.create_task_group() as group:
            receiving = Started(group, rx.recv_batch_async)
            await suspended(rx)
            far.send(b"x")
        assert len(receiving.got) == 1

    for name in (*LOOPS, *LOOPS, "asyncio", "asyncio"):
        runner(name)(main)
    opened.close()


def test_a_receiver_can_go_from_a_running_loop_to_another(opened, no_leaked_descriptors):
    rx, far = opened.pipe()
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for turn in range(6):
        loop = loops[turn % 2]
        loop.call_later(0.001, far.send, b"x")
        assert len(loop.run_until_complete(rx.recv_batch_async(10))) == 1
    rx.close()
    for loop in loops:
        loop.close()
    opened.close()


def test_trio_as_a_guest_of_asyncio_is_told_from_its_host(opened):
    rx, far = opened.pipe()
    other, away = opened.pipe()

    async def guest():
        batch = await rx.recv_batch_async()
        away.send(b"from the guest")
        return bytes(batch[0])

    async def main():
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=over.set_result
        )
        await suspended(rx)
        far.send(b"from the host")
        assert bytes((await other.recv_batch_async())[0]) == b"from the guest"
        assert (await over).unwrap() == b"from the host"

    asyncio.run(main())


# Healing and silence ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd and rtnetlink are Linux's")
def test_on_silence_is_called_while_a_task_waits(opened, feed, run):
    tx = opened.sender(feed)
    told = []

    def on_silence(silence):
        told.append(silence)
        tx.send(b"late")

    rx = opened.receiver(feed, silence=0.05, on_silence=on_silence)

    async def main():
        assert bytes((await rx.recv_batch_async(None))[0]) == b"late"

    run(main)
    assert len(told) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd and rtnetlink are Linux's")
def test_what_on_silence_raises_comes_out_of_the_await_and_it_may_close(opened, feed, run):
    def on_silence(_):
        raise LookupError("silent")

    raising = opened.receiver(feed, silence=0.02, on_silence=on_silence)
    closing = opened.receiver(feed, silence=0.02, on_silence=lambda _: closing.close())

    async def main():
        with pytest.raises(LookupError, match="silent"):
            await raising.recv_batch_async(None)
        assert await all_of(closing) == []
        assert closing.closed

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
def test_the_watch_is_seen_to_while_a_task_waits_and_not_without_end(opened, feed, run, multicast, monkeypatch):
    """Ready when there is nothing to receive: by a timer here, by the kernel's messages in test_healing_ways.py."""
    looks = []

    class Looking(multicast.skt.Watch):
        def handle(self, sock, delivered):
            looks.append(1)
            super().handle(sock, delivered)

    monkeypatch.setattr(multicast.skt, "Watch", Looking)
    rx = opened.receiver(feed, silence=0.1, on_silence=looks.append)

    async def main():
        with pytest.raises(TimeoutError):
            await rx.recv_batch_async(0.3)

    run(main)
    assert 3 <= len(looks) < 60


# Other trios ---------------------------------------------------------------------------------------------------------


def outside():
    raise RuntimeError("must be called from async context")


@pytest.mark.parametrize(
    "lowlevel",
    [SimpleNamespace(current_task=outside, current_trio_token=outside), SimpleNamespace()],
    ids=["old", "half imported"],
)
def test_an_old_trio_that_is_merely_imported_does_no_harm(opened, run_asyncio, monkeypatch, lowlevel):
    rx, far = opened.pipe()

    async def main():
        monkeypatch.setitem(sys.modules, "trio", SimpleNamespace(lowlevel=lowlevel))
        asyncio.get_running_loop().call_later(0.01, far.send, b"x")
        try:
            assert len(await rx.recv_batch_async()) == 1
        finally:
            monkeypatch.undo()

    run_asyncio(main)


def test_a_trio_that_can_only_be_asked_for_its_task_is_enough(opened, monkeypatch):
    """As it was before it had in_trio_task and in_trio_run."""
    monkeypatch.delattr(trio.lowlevel, "in_trio_task")
    monkeypatch.delattr(trio.lowlevel, "in_trio_run")
    there, far = opened.pipe(timeout=None)
    elsewhere, _ = opened.pipe()

    async def main():
        async with anyio.create_task_group() as group:
            receiving = Started(group, lambda: all_of(there))
            await suspended(there)
            numbered(far, 0, 3)
            while there.stats().datagrams < 3:
                await anyio.sleep(0)
            there.close()
        assert receiving.got == [0, 1, 2]
        with pytest.raises(TimeoutError):
            await elsewhere.recv_batch_async(0.001)

    runner("trio")(main)
    elsewhere.close()  # where no trio runs
