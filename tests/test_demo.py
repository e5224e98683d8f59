"""The demonstration: it ends by itself with a closed ledger, and it would say so if the ledger did not close."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from net import python_environment

from multicast import _moldudp64, demo


@pytest.mark.alone  # as fast as it goes
def test_it_prints_a_closed_ledger(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "multicast", "demo", "--seconds", "2"],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert f"{multicast.BACKEND} backend" in lines[0]
    ledgers = [line for line in lines if line.startswith("ledger, ")]
    assert len(ledgers) == 2
    assert all(line.endswith(": closed") for line in ledgers)
    assert sum("datagrams/s" in line for line in lines) >= 2
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.alone  # as fast as it goes
def test_json_is_one_object_with_an_exact_account(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "multicast", "demo", "--seconds", "1", "--json"],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["backend"] == multicast.BACKEND
    assert found["closed"] is True
    assert [run["receiver"] for run in found["runs"]] == [multicast.BACKEND, "recv_into"]
    for run in found["runs"]:
        assert run["sent"] > 1000
        assert run["sent"] == run["received"] + run["dropped"]
        assert run["missing"] == run["dropped"]


@pytest.mark.alone  # as fast as it goes
def test_ctrl_c_ends_both_processes_quietly(multicast):
    """As a terminal sends it: to the receiver and to the sender."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "multicast", "demo", "--seconds", "30"],
        env=python_environment(multicast),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while "datagrams/s" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (130, "")
        deadline = time.monotonic() + 10
        with pytest.raises(ProcessLookupError):  # nobody of the session is left, once multiprocessing's own helper ends
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x", "1e9"])
def test_wrong_usage_is_exit_code_2(multicast, seconds):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "multicast", "demo", f"--seconds={seconds}"],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--seconds" in done.stderr


def test_a_reader_that_has_gone_is_no_traceback(multicast):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "multicast"],
        env=python_environment(multicast),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_without_a_command_it_prints_what_a_bug_report_needs(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "multicast"],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert multicast.__version__ in done.stdout
    assert f"{multicast.BACKEND}: {multicast.BACKEND_REASON}" in done.stdout
    assert sys.executable in done.stdout


def stream(feed, count):
    """The first `count` datagrams of the feed: sequence number and message count of each."""
    sequence, found = 1, []
    while True:
        for train in feed.trains:
            after = train.number(sequence)
            for at in range(0, len(train.buffer), train.size):
                session, number, messages = _moldudp64.HEADER.unpack_from(train.buffer, at)
                assert session == feed.session
                found.append((number, messages))
                if len(found) == count:
                    return found
            sequence = after


def account(drop, count=20_000, drops=None, sent=None):
    """The ledger of a receiver that got all but the datagrams in `drop`."""
    feed = _moldudp64.SyntheticFeed(b"0123456789")
    tally = demo.Tally(feed, "test", lambda line: None)
    received = 0
    for i, (sequence, messages) in enumerate(stream(feed, count)):
        if i in drop:
            continue
        if sequence != tally.expected:
            tally.gap(feed.session, sequence)
        tally.expected = sequence + messages
        received += 1
    counted = demo.Count(received, 0, 1, len(drop) if drops is None else drops)
    return tally.finish(counted, count if sent is None else sent, 1.0)


def test_the_ledger_closes_over_any_gaps():
    for drop in (set(), {0}, {19_999}, {5, 6, 7, 9000}, set(range(100, 15_000)), set(range(19_000, 20_000))):
        run = account(drop)
        assert run.closed
        assert (run.missing, run.unaccounted) == (len(drop), 0)


def test_the_ledger_sees_what_does_not_add_up(monkeypatch, capsys):
    lost_without_a_count = account({7, 8}, drops=0)
    assert not lost_without_a_count.closed
    assert lost_without_a_count.unaccounted == 2
    counted_and_not_missing = account(set(), drops=3)
    assert not counted_and_not_missing.closed
    more_sent = account(set(), sent=20_001)
    assert not more_sent.closed
    with pytest.raises(SystemExit, match="somebody else"):
        demo.Tally(_moldudp64.SyntheticFeed(b"0123456789"), "test", print).gap(b"9876543210", 5)
    monkeypatch.setattr(demo, "measure", lambda *_: lost_without_a_count)
    assert demo.run(1.0) == 1
    assert "OPEN: 2 unaccounted for" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="what a process blocks is in its /proc/PID/status")
def test_the_sender_never_gets_a_ctrl_c_and_the_receiver_does():
    """A terminal sends it to both, also to one that is still starting, which would print a traceback."""

    def blocks_ctrl_c(pid):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return bool(int(status.partition("SigBlk:")[2].split()[0], 16) & 1 << signal.SIGINT - 1)

    with demo.Publisher(b"DEMO000000", 20_000, 1) as publisher:
        assert blocks_ctrl_c(publisher._process.pid)
        assert not blocks_ctrl_c(os.getpid())


def test_ctrl_c_leaves_the_last_line_of_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def interrupted(port, publisher, tally):
        tally.line(demo.Count(1, 1, 1, 0), tally.next_line)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(KeyboardInterrupt):
        demo.measure("native", interrupted, 1, demo.Output())
    assert sys.stdout.getvalue().endswith("\x1b[K\n")


@pytest.mark.parametrize("drops", [0, 1_234_567, None])
def test_the_line_of_a_second_fits_80_columns(drops):
    said = []
    tally = demo.Tally(_moldudp64.SyntheticFeed(b"DEMO000000"), "recv_into", said.append)
    tally.line(demo.Count(9_999_999, 2_000_000_000, 160_000, drops), tally.next_line)
    assert len(said[0]) < 80
