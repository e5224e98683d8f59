"""One run of the live scenarios: a feed from a sender process to a receiver process, and the account between them.

Owns the socket that every contender receives from (bound, joined, its receive buffer the same for all), the processes,
each kept on a core of its own, and what is sent, received and dropped. The traffic is on the loopback interface with
TTL 0, where the sender's core does the kernel's share of receiving, too. Must not know a scenario.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from programs import NotBuilt, Programs

import multicast
from multicast import _columns
from multicast._options_py import memory_of

HERE = pathlib.Path(__file__).parent
RECEIVE_BUFFER = 8 << 20
SLOT, BATCH = 2048, 64  # bytes of a datagram that a receiver has room for; datagrams in a batch
PATIENCE = 30.0  # seconds for what should be done at once
NAME_SIZE = 16  # struct sockaddr_in


class Failure(Exception):
    """A run that can't be used: a process died, or the account does not close."""


class Absent(Exception):
    """A contender that can't run here; says why."""


class Feed(NamedTuple):
    """What is sent: datagrams of `size` bytes for some seconds, at a rate a second, or with 0 as fast as it goes.

    train: how many are handed to the kernel as one, which cuts it; stamped: one datagram at a time, each with its time
    """

    rate: float
    seconds: float
    size: int = 200
    train: int = 1
    stamped: bool = False


@dataclasses.dataclass(frozen=True)
class Contender:
    """A receiver: its name for people, which program it is, and by which word that knows it.

    told: the kernel is asked for source, destination, interface, TTL, TOS, drops and its timestamp
    ends: "shutdown", the socket's, which a blocking receive sees; "stop", the word on stdin
    """

    name: str
    program: str  # "c", "go", "native" or "stdlib": Python, with this backend
    word: str
    told: bool = False
    ends: str = "stop"
    gro: bool = False
    slot: int = SLOT


class Run(NamedTuple):
    """What one run brought; seconds: from the first datagram sent until the queue was empty."""

    sent: int
    received: int
    lost: int
    drops: int | None  # by the kernel's count
    offered: float  # datagrams a second that were really sent
    seconds: float
    user: float  # CPU seconds of the receiver
    system: float
    delays: list[int]

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Child:
    """A process on one core that says "ready", does its work, and says in JSON what came of it."""

    def __init__(self, name: str, command: list[object], core: int, **options: Any) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._said = b""
        with _on(core):  # a child starts where its parent is
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                process_group=0,  # Ctrl-C is for the parent, which ends this one
                **options,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for each in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                each.close()
        self._errors.close()

    def ready(self) -> None:
        """Wait until it has set up all; raises Absent where it can't run here."""
        if (line := self._line(PATIENCE)) != b"ready":
            raise Absent(json.loads(line)["absent"])

    def say(self, line: str) -> None:
        """Give it a line, if it is still there; if not, its answer tells."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """Return what it found."""
        return json.loads(self._line(seconds))

    def check(self) -> None:
        """Raise Failure if it has ended."""
        if (status := self.process.poll()) is not None:
            raise self._failure(f"ended with {_status(status)}")

    def _line(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        fd = self.process.stdout.fileno()
        while b"\n" not in self._said:
            if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise self._failure(f"said nothing for {seconds:g} s")
            if not (more := os.read(fd, 1 << 20)):
                raise self._failure(f"ended with {_status(self.process.wait(PATIENCE))}")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _failure(self, text: str) -> Failure:
        self._errors.seek(0)
        return Failure(f"{self.name}: {text}\n{self._errors.read()}".rstrip())


def _status(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


@contextlib.contextmanager
def _on(core: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores() -> tuple[int, int]:
    """Return the sender's core and the receiver's: one and the same where there is but one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-2:][0], usable[-1]


class Stage:
    """Where contenders run one after the other, on programs built once."""

    def __init__(self, programs: Programs, *, receive_buffer: int = RECEIVE_BUFFER) -> None:
        self.programs = programs
        self.receive_buffer = receive_buffer
        self.granted = 0  # by the kernel
        own = os.getpid()  # another benchmark on this host has another group and port
        self.group, self.port = f"239.255.{64 + own % 64}.{own // 64 % 256}", 47_100 + own % 900

    def run(self, contender: Contender, feed: Feed) -> Run:
        """Let one contender receive one feed.

        Raises Absent where it can't run here, and Failure where a process died or the account does not close.
        """
        sending, receiving = cores()
        limit = int(feed.seconds + 3 * PATIENCE)
        with contextlib.ExitStack() as stack:
            sock, control_size = self._socket(contender)
            stack.enter_context(sock)
            command, options = self._receiver(contender, sock, control_size, feed.stamped, limit)
            receiver = stack.enter_context(Child(contender.name, command, receiving, **options))
            receiver.ready()
            words = (self.group, self.port, feed.size, feed.rate, feed.seconds, feed.train, int(feed.stamped), limit)
            sender = stack.enter_context(Child("the sender", [self.programs.feed, *words], sending))
            sender.ready()
            sender.say("go")
            report = sender.answer(feed.seconds + PATIENCE)
            _wait_until_empty(sock, receiver)
            emptied = time.monotonic_ns()
            if contender.ends == "shutdown":
                with contextlib.suppress(OSError):  # ENOTCONN: it is not connected; who waits is woken all the same
                    sock.shutdown(socket.SHUT_RD)
            else:
                receiver.say("stop")
            found = receiver.answer(PATIENCE)
            counted = memory_of(sock)
        return _account(contender, report, found, None if counted is None else counted[0], emptied)

    def take_turns(
        self, contenders: Sequence[Contender], feed: Feed, rounds: int, seed: int
    ) -> tuple[dict[str, list[Run]], dict[str, str]]:
        """Let each receive the feed once a round, in an order drawn anew: their runs, and who is absent and why."""
        dice, order, absent = random.Random(seed), list(contenders), {}
        runs: dict[str, list[Run]] = {each.name: [] for each in contenders}
        for _ in range(rounds):
            dice.shuffle(order)
            for each in order:
                if each.name not in absent:
                    try:
                        runs[each.name].append(self.run(each, feed))
                    except Absent as reason:
                        absent[each.name] = str(reason)
        return {name: own for name, own in runs.items() if own}, {
            each.name: absent[each.name] for each in contenders if each.name in absent
        }

    def about(self) -> dict[str, Any]:
        """Return what a reader has to know beside the figures."""
        sending, receiving = cores()
        return {"sender_core": sending, "receiver_core": receiving, "receive_buffer": self.granted}

    def _socket(self, contender: Contender) -> tuple[socket.socket, int]:
        sock = multicast.genSocket()
        try:
            self.granted = multicast.set_receive_buffer(sock, self.receive_buffer)
            sock.bind((self.group, self.port))
            multicast.join_group(sock, self.group, "lo")
            control_size = 0
            if contender.told:
                wanted = _columns.Wanted(_columns.COLUMNS, "software", False, False, "bench")
                control_size = wanted.enable(sock, "bench")
        except BaseException:
            sock.close()
            raise
        return sock, control_size

    def _receiver(
        self, contender: Contender, sock: socket.socket, control_size: int, timed: bool, limit: int
    ) -> tuple[list[object], dict[str, Any]]:
        """Return the command, and what else its process needs."""
        fd = sock.fileno()
        options: dict[str, Any] = {"pass_fds": [fd]}
        if contender.program == "c":
            name_size = NAME_SIZE if contender.told else 0
            numbers = (fd, contender.slot, BATCH, name_size, control_size, int(timed), limit)
            return [self.programs.receive, contender.word, *numbers], options
        if contender.program == "go":
            try:
                program = self.programs.go()
            except NotBuilt as reason:
                raise Absent(str(reason)) from None
            return [program, fd, contender.slot, BATCH, int(timed), limit], options
        if contender.program == "native" and multicast.BACKEND != "native":
            raise Absent(multicast.BACKEND_REASON)
        given = {"fd": fd, "group": self.group, "port": self.port, "size": contender.slot, "batch": BATCH}
        given |= {"control_size": control_size, "timed": timed, "limit": limit}
        options["env"] = os.environ | {"MULTICAST_BACKEND": contender.program}
        return [sys.executable, "-P", HERE / "receivers", contender.word, json.dumps(given)], options


def circumstances(about: Mapping[str, Any]) -> str:
    """Return that as text."""
    if about["sender_core"] == about["receiver_core"]:
        where = f"sender and receiver share core {about['sender_core']}, the only one"
    else:
        where = (
            f"sender on core {about['sender_core']}, which on the loopback interface does the kernel's share of "
            f"receiving, too;\nreceiver on core {about['receiver_core']}"
        )
    return f"{where}; receive buffer of {about['receive_buffer']:,} bytes"


def absentees(absent: Mapping[str, str], width: int) -> list[str]:
    """Return a line for each contender that can't run here."""
    return [f"{name:{width}}  absent: {reason}" for name, reason in absent.items()]


def _wait_until_empty(sock: socket.socket, receiver: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    while int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder):
        receiver.check()
        if time.monotonic() > deadline:
            raise Failure(f"{receiver.name}: the queue is not empty after {PATIENCE:g} s")
        time.sleep(0.001)


def _account(
    contender: Contender, report: dict[str, Any], found: dict[str, Any], drops: int | None, emptied: int
) -> Run:
    """Close the books: what was sent is what was received and what the kernel dropped."""
    sent, received = report["sent"], found["received"]
    lost = sent - received
    # With GRO a kernel may count a train that it drops as one.
    disagree = drops is not None and (bool(drops) != bool(lost) if contender.gro else drops != lost)
    if lost < 0 or disagree:
        raise Failure(f"{contender.name}: {sent} sent, {received} received, and {drops} dropped by the kernel's count")
    return Run(
        sent=sent,
        received=received,
        lost=lost,
        drops=drops,
        offered=sent / (report["end_ns"] - report["begin_ns"]) * 1e9,
        seconds=(emptied - report["begin_ns"]) / 1e9,
        user=found["user"],
        system=found["system"],
        delays=found["delays"],
    )
