"""Closing a receiver that an event loop waits for: from anywhere, at any moment; nothing leaks, nothing is called."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import anyio
import pytest
from loops import ASYNCIO, DEADLINE, LOOPS, Started, all_of, runner, suspended
from net import open_descriptors, python_environment

pytest_plugins = ["loops_fixtures"]


@pytest.fixture(autouse=True)
def nothing_logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert [each for each in caplog.records if each.levelno >= logging.WARNING or each.name == "multicast"] == []


# It wakes who waits -------------------------------------------------------------------------------------------------


def from_another_thread(rx):
    thread = threading.Thread(target=rx.close)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "closing", [lambda rx: rx.close(), from_another_thread], ids=["another task", "another thread"]
)
def test_close_wakes_a_task_that_waits(opened, run, closing, no_leaked_descriptors):
    async def main():
        for turns in range(20):  # in the midst of the wait, and on the way there
            for form, ended in ((all_of, []), (lambda rx: rx.recv_batch_async(), None)):
                rx, _ = opened.pipe(timeout=None)
                async with anyio.create_task_group() as group:
                    receiving = Started(group, lambda form=form, rx=rx: form(rx))
                    for _ in range(turns % 5):
                        await anyio.sleep(0)
                    if turns > 10:
                        await suspended(rx)
                    closing(rx)
                if ended is None:
                    assert receiving.error.errno == errno.EBADF
                    assert "recv_batch_async: already closed" in str(receiving.error)
                assert receiving.got == ended
                with pytest.raises(OSError, match="recv_batch_async: already closed"):
                    await rx.recv_batch_async()
                assert await all_of(rx) == []
                opened.close()

    run(main)


def test_close_within_an_iteration_ends_it(opened, run):
    rx, far = opened.pipe(batch_size=1)
    got = []

    async def main():
        for i in range(3):
            far.send(bytes([i]))
        async for batch in rx:
            got.append(bytes(batch[0]))
            rx.close()

    run(main)
    assert got == [b"\0"]


def test_a_thread_that_closes_at_any_moment_is_never_missed(opened, run):
    """A hang fails."""

    async def main():
        for i in range(200):
            rx, far = opened.pipe(timeout=None)
            go = threading.Event()
            thread = threading.Thread(target=lambda rx=rx, go=go: (go.wait(10), rx.close()))
            thread.start()
            if i % 2:
                far.send(b"x")
            async with anyio.create_task_group() as group:
                receiving = Started(group, lambda rx=rx: all_of(rx))
                for turn in range(8):
                    if turn == i % 8:
                        go.set()
                    await anyio.sleep(0)
            thread.join(10)
            assert receiving.error is None
            opened.close()

    run(main)


@pytest.mark.parametrize("moment", ["before the loop is told", "after the loop is told", "before the wait"])
def test_a_thread_that_closes_on_the_way_to_the_wait_is_not_missed(opened, run, multicast, monkeypatch, moment):
    loops, asynchronous = multicast._loops, multicast._async
    rx, _ = opened.pipe(timeout=None)
    if moment == "before the wait":
        original = asynchronous.Awaiting._next

        async def closed_first(self, receiver, timeout, deadline):
            wait = self._wait_here(receiver)
            monkeypatch.setattr(self, "_wait_here", lambda _: (from_another_thread(receiver), wait)[1])
            return await original(self, receiver, timeout, deadline)

        monkeypatch.setattr(asynchronous.Awaiting, "_next", closed_first)
    else:
        made = loops.one_shot

        def closing(fd):
            if moment == "before the loop is told":
                from_another_thread(rx)
                return made(rx.fileno())
            found = made(fd)
            from_another_thread(rx)
            return found

        monkeypatch.setattr(loops, "one_shot", closing)

    async def main():
        before = open_descriptors().keys()
        with pytest.raises(OSError, match="recv_batch_async: already closed"):
            await rx.recv_batch_async()
        while not open_descriptors().keys() < before:  # what the loop is told by a thread it does in its next turn
            await anyio.sleep(0)

    run(main)


def test_a_signals_handler_may_close(opened, run):
    rx, _ = opened.pipe(timeout=None)
    before = signal.signal(signal.SIGUSR1, lambda *_: rx.close())

    async def main():
        async with anyio.create_task_group() as group:
            receiving = Started(group, lambda: all_of(rx))
            await suspended(rx)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert receiving.got == []

    try:
        run(main)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("form", [all_of, lambda rx: rx.recv_batch_async()], ids=["async for", "recv_batch_async"])
def test_a_signals_handler_may_close_while_the_loop_sleeps(opened, run, form):
    """Nothing but the close wakes the loop before the backstop does."""
    rx, _ = opened.pipe(timeout=None)
    before = signal.signal(signal.SIGALRM, lambda *_: rx.close())

    async def main():
        backstop = anyio.current_time() + DEADLINE / 4
        with anyio.CancelScope(deadline=backstop):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            if form is all_of:
                assert await form(rx) == []
            else:
                with pytest.raises(OSError, match="already closed"):
                    await form(rx)
        assert rx.closed
        assert anyio.current_time() < backstop

    try:
        run(main)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Nothing comes after it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOOPS)
def test_no_callback_comes_after_close_and_no_stranger_is_watched(multicast, opened, name, monkeypatch):
    """Thousands of times, also amid the callbacks: when the loop has found it ready already."""
    cycles = 2000 if name in ASYNCIO and multicast.BACKEND == "native" else 300
    waits, called, late, closed = [], [], [], []
    loops = multicast._loops
    make, readable = loops.LoopWait.__init__, loops.AsyncioWait._readable

    def made(self, *arguments):
        waits.append(self)
        make(self, *arguments)

    def called_back(self, sleeper):
        (late if closed and closed[-1] is self else called).append(1)
        readable(self, sleeper)

    monkeypatch.setattr(loops.LoopWait, "__init__", made)
    monkeypatch.setattr(loops.AsyncioWait, "_readable", called_back)

    async def main():
        before = open_descriptors().keys()
        for cycle in range(cycles):
            rx, far = opened.pipe(timeout=None)
            async with anyio.create_task_group() as group:
                Started(group, lambda rx=rx: all_of(rx))
                while not rx._awaited:
                    await anyio.sleep(0)
                far.send(b"x")
                for _ in range(cycle % 5):
                    await anyio.sleep(0)
                rx.close()
                closed.append(waits[-1])
                # Those that have the numbers now are ready at once.
                strangers = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
                for one, other in strangers:
                    one.send(b"poison")
                    other.send(b"poison")
            await anyio.sleep(0)
            for pair in strangers:
                for each in pair:
                    each.close()
            opened.close()
        assert open_descriptors().keys() == before

    runner(name)(main)
    assert late == []
    assert len(waits) == cycles
    assert bool(called) == ("trio" not in name)


def test_what_it_costs_in_descriptors(opened, run, no_leaked_descriptors):
    """One while it is open, and none once it is closed."""
    rx, _ = opened.pipe()

    async def main():
        before = open_descriptors().keys()
        with pytest.raises(TimeoutError):
            await rx.recv_batch_async(0.001)
        more = open_descriptors().keys() - before
        assert len(more) == 1
        assert not any(os.get_inheritable(int(number)) for number in more)
        rx.close()
        assert not open_descriptors().keys() & more

    run(main)
    opened.close()


@pytest.mark.filterwarnings("ignore:unclosed.*family=1:ResourceWarning")
def test_a_forgotten_receiver_leaks_nothing_while_the_loop_goes_on(multicast, run, no_leaked_descriptors):
    async def main():
        before = open_descriptors().keys()
        for _ in range(10):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            rx = multicast.Receiver(near)
            with pytest.raises(TimeoutError):
                await rx.recv_batch_async(0.001)
            near.close()
            far.close()
            del rx
            await anyio.sleep(0)  # trio keeps the exception that ended the wait until the task's next step
            gc.collect()
            assert open_descriptors().keys() == before

    run(main)


@pytest.mark.parametrize("name", LOOPS)
def test_a_receiver_can_be_closed_after_its_loop(opened, name, no_leaked_descriptors):
    rx, _ = opened.pipe()

    async def main():
        with pytest.raises(TimeoutError):
            await rx.recv_batch_async(0.001)

    runner(name)(main)
    rx.close()
    opened.close()


def test_a_receiver_can_be_closed_while_its_loop_pauses(opened, no_leaked_descriptors):
    """It is neither running nor closed: when it goes on, the task that waits ends."""
    rx, _ = opened.pipe(timeout=None)
    loop = asyncio.new_event_loop()
    task = loop.create_task(rx.recv_batch_async())
    loop.run_until_complete(asyncio.sleep(0.001))
    rx.close()
    with pytest.raises(OSError, match="already closed"):
        loop.run_until_complete(task)
    loop.close()
    opened.close()


@pytest.mark.parametrize("name", ASYNCIO)
@pytest.mark.parametrize("timeout", [None, 60])
def test_a_closed_loop_and_its_task_leave_the_receiver_usable(opened, name, timeout):
    """A task that was left there suspended keeps nobody out once nobody has it; until then the loop has it."""
    rx, far = opened.pipe()
    loop = sys.modules[name].new_event_loop()
    said = []
    loop.set_exception_handler(lambda _, context: said.append(context["message"]))
    loop.create_task(rx.recv_batch_async(timeout))
    loop.run_until_complete(asyncio.sleep(0.01))
    gc.collect()
    assert rx._awaited
    loop.close()
    gc.collect()
    assert said == ["Task was destroyed but it is pending!"]
    far.send(b"x")
    assert len(rx.recv_batch(0)) == 1
    far.send(b"y")
    assert len(runner(name)(rx.recv_batch_async)) == 1


def test_what_interrupts_a_close_is_raised_and_another_one_ends_it(opened, run, multicast, monkeypatch):
    """As a signal's handler may."""
    rx, _ = opened.pipe()

    class Interrupted(Exception):
        pass

    def interrupted(_):
        monkeypatch.undo()
        raise Interrupted

    async def main():
        before = open_descriptors().keys()
        with pytest.raises(TimeoutError):
            await rx.recv_batch_async(0.001)
        more = open_descriptors().keys() - before
        monkeypatch.setattr(multicast._loops.LoopWait, "dismiss", interrupted)
        with pytest.raises(Interrupted):
            rx.close()
        assert open_descriptors().keys() & more
        rx.close()
        assert not open_descriptors().keys() & more

    run(main)


def test_an_error_of_the_system_says_in_what(opened, run, multicast, monkeypatch):
    def refused(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    rx, far = opened.pipe()

    async def main():
        monkeypatch.setattr(multicast._loops, "one_shot", refused)
        with pytest.raises(OSError, match=r"^\[Errno 24\] recv_batch_async: Too many open files$"):
            await rx.recv_batch_async()
        monkeypatch.undo()
        far.send(b"x")
        assert len(await rx.recv_batch_async()) == 1

    run(main)


def test_what_a_signals_handler_raises_comes_out_as_it_is(opened, run, multicast, monkeypatch):
    """Also the usual TimeoutError of an alarm, which is an OSError."""
    rx, _ = opened.pipe()
    raised = TimeoutError("by a handler")

    async def main():
        with pytest.raises(TimeoutError) as caught:
            await rx.recv_batch_async()
        assert caught.value is raised

    def handler(_):
        raise raised

    monkeypatch.setattr(multicast._loops, "one_shot", handler)
    run(main)


# Processes ----------------------------------------------------------------------------------------------------------

FORK = """
import os, socket, sys
import anyio
import multicast

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
rx = multicast.Receiver(near, timeout=None)
got = []

async def receive():
    got.append(bytes((await rx.recv_batch_async())[0]))

async def main():
    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await anyio.sleep(0.01)
        child = os.fork()
        if child == 0:
            before = len(os.listdir("/proc/self/fd"))
            rx.close()
            os._exit(before - len(os.listdir("/proc/self/fd")))
        closed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert closed == (4 if multicast.BACKEND == "native" else 5), closed
        await anyio.sleep(0.01)
        assert not got, "the child's close() woke the parent"
        far.send(b"for the parent")
    assert got == [b"for the parent"]

backend, _, option = sys.argv[1].partition(" ")
anyio.run(main, backend=backend, backend_options={"use_uvloop": True} if option else {})
rx.close()
near.close()
far.close()
"""

LEFT = """
import asyncio, socket, sys
import multicast

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
rx = multicast.Receiver(near, timeout=None)

async def main():
    task = asyncio.create_task(rx.recv_batch_async())
    await asyncio.sleep(0.01)
    far.send(b"x")
    await task
    if sys.argv[1] == "waiting":
        global left
        left = asyncio.create_task(rx.recv_batch_async())
        await asyncio.sleep(0.01)

if sys.argv[1] == "open":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
else:
    asyncio.run(main())
near.close()
far.close()
if sys.argv[1] == "open":
    loop.close()
"""


@pytest.mark.parametrize(
    ("code", "word"),
    [
        *(pytest.param(FORK, word, id=f"fork, {word}") for word in ("asyncio", "asyncio uvloop", "trio")),
        *(pytest.param(LEFT, word, id=f"left {word}") for word in ("closed", "waiting", "open")),
    ],
)
def test_in_development_mode_nothing_is_said(multicast, code, word):
    """By asyncio's own checks: of a fork, and of a receiver that is open when the process ends."""
    quiet = ["-W", "ignore::ResourceWarning"] if code is LEFT else []  # the twin's sockets: it is not closed, after all
    done = subprocess.run(
        [sys.executable, "-P", "-X", "dev", *quiet, "-c", code, word],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
