"""What the process around a receiver may do: fork, and run where a sandbox denies recvmmsg."""

import os
import subprocess
import sys
import threading
import time

import pytest
from net import python_environment
from seccomp import unavailable as no_seccomp

FORK = """
import errno, os, socket, sys, threading, time
import multicast

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
rx = multicast.Receiver(near, timeout=10)
outlet, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
tx = multicast.Sender(outlet)
got = []
thread = threading.Thread(target=lambda: got.extend(bytes(view) for view in rx.recv_batch()))
thread.start()
time.sleep(0.05)
child = os.fork()
if child == 0:
    code = 0
    for call in (lambda: rx.recv_batch(0), lambda: rx.stats(), lambda: next(rx), lambda: tx.send(b"x")):
        try:
            call()
            code |= 1
        except RuntimeError as error:
            if "os.fork()" not in str(error):
                code |= 2
    before = len(os.listdir("/proc/self/fd"))
    rx.close()
    tx.close()
    if len(os.listdir("/proc/self/fd")) >= before - 4:
        code |= 4
    os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child"
time.sleep(0.05)
assert thread.is_alive(), "the child's close() woke the parent"
far.send(b"for the parent")
thread.join(10)
assert got == [b"for the parent"], got
rx.close()
print("parent and child are apart")
"""


def run(code, multicast, *arguments):
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env=python_environment(multicast, tests=True),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_refused_and_the_parent_goes_on(multicast):
    assert run(FORK, multicast) == "parent and child are apart\n"


FORK_AMID = """
import os, signal, socket, threading
import multicast

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
rx = multicast.Receiver(near, timeout=0)
held, done = threading.Event(), threading.Event()
def hold():  # as a call does that another thread is in the middle of
    with rx._lock:
        held.set()
        done.wait(60)
thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(20)  # kills it, should it hang
    for call in (rx.recv_batch, rx.stats, lambda: rx.leave("239.1.1.1")):
        try:
            call()
            os._exit(1)
        except RuntimeError as error:
            assert "os.fork()" in str(error)
    rx.close()
    try:
        rx.stats()
    except RuntimeError:
        os._exit(0)
    os._exit(2)
done.set()
thread.join(60)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_amid_another_threads_call_does_not_hang_the_child(both):
    """Of the twin: the native backend has no lock that could stay taken."""
    run(FORK_AMID, both[1])


DENY = """
import ctypes, errno, os, socket, struct, sys
from seccomp import enter
import multicast

# As strict sandboxes have it: recvmmsg and sendmmsg answer with the errno given, all else goes.
answer = int(sys.argv[1])
wanted = {"receiving": {"recvmmsg"}, "sending": {"sendmmsg"}, "both": {"recvmmsg", "sendmmsg"}}[sys.argv[2]]
if refused := enter(*((name, {}, answer) for name in wanted)):
    print("no seccomp here:", refused)
    raise SystemExit
libc = ctypes.CDLL(None, use_errno=True)
vector = ctypes.create_string_buffer(64)
denied = set()
for name, arguments in (("recvmmsg", (-1, vector, 0, 0, None)), ("sendmmsg", (-1, vector, 0, 0))):
    assert getattr(libc, name)(*arguments) == -1
    if ctypes.get_errno() == answer:
        denied.add(name)
assert denied == wanted, "the filter is not in force"

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
with multicast.Receiver(near, batch_size=8, datagram_size=100, timeout=10) as rx, multicast.Sender(far) as tx:
    sent = [bytes([i]) * (i * 10) for i in range(20)]
    assert tx.send_batch(sent) == 20
    sizes, got = [], []
    while len(got) < 20:
        batch = rx.recv_batch()
        sizes.append(len(batch))
        assert list(batch.real_lengths) == [len(data) for data in sent[len(got):len(got) + len(batch)]]
        got += [bytes(view) for view in batch]
    assert got == [data[:100] for data in sent]
    assert sizes == [8, 8, 4], sizes
    for timeout, kind in ((0, BlockingIOError), (0.01, TimeoutError)):
        try:
            rx.recv_batch(timeout)
        except kind:
            continue
        raise AssertionError(kind)
print("all is there")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize("what", ["both", "receiving", "sending"])
@pytest.mark.parametrize("answer", [38, 1], ids=["ENOSYS", "EPERM"])
def test_where_the_batch_calls_are_denied_one_by_one_does_it(native, answer, what):
    said = run(DENY, native, str(answer), what)
    if said.startswith("no seccomp here: "):
        no_seccomp(said.partition(": ")[2])
    assert said == "all is there\n"


def test_the_wait_frees_the_interpreter_for_other_threads(opened):
    """While a receive waits, this thread runs: else nothing could ever send what it waits for."""
    rx, far = opened.pipe(timeout=None)
    got = []
    thread = threading.Thread(target=lambda: got.extend(bytes(view) for view in rx.recv_batch()))
    thread.start()
    begin, turns = time.monotonic(), 0
    while time.monotonic() - begin < 0.05:
        turns += 1
    far.send(b"x")
    thread.join(10)
    assert got == [b"x"]
    assert turns > 100
