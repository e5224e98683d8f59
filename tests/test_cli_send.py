"""`multicast send`: every datagram comes as it was asked for, the account is right, and what can't be is said first."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import feeds
import pytest
from net import python_environment, tool

from multicast import __main__ as program
from multicast import _sequence
from multicast.cli import send
from multicast.cli.datagrams import Lines, Synthetic

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loopback interface is lo, and hosts are Linux's")

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "commands" / "send.md"


@pytest.fixture
def sending(multicast, monkeypatch, capsys):
    """Run the command in this process, with senders of the backend under test: exit code, what it printed as JSON."""
    monkeypatch.setattr(send, "open_sender", multicast.open_sender)

    def run(*words: str):
        code = program.main(["send", *words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return run


def came(receiver, count: int) -> list[bytes]:
    """Return the next so many datagrams."""
    found: list[bytes] = []
    while len(found) < count:
        found += [bytes(view) for view in receiver.recv_batch()]
    return found


def text(feed: tuple[str, int]) -> str:
    return f"{feed[0]}:{feed[1]}%lo"


@pytest.fixture
def given_lines(monkeypatch):
    """Have standard input be these bytes."""

    def give(data: bytes) -> None:
        out, into = os.pipe()
        os.write(into, data)
        os.close(into)
        file = os.fdopen(out)
        monkeypatch.setattr(sys, "stdin", file)
        files.append(file)

    files = []
    yield give
    for each in files:
        each.close()


# What is sent ------------------------------------------------------------------------------------------------------


def test_each_argument_is_a_datagram(opened, feed, sending):
    rx = opened.receiver(feed)
    code, told, said = sending(text(feed), "hello", "", "wörld")
    assert came(rx, 3) == [b"hello", b"", "wörld".encode()]
    assert (code, told["sent"], told["bytes"], told["ttl"], told["error"]) == (0, 3, 11, 0, None)
    assert f"{text(feed)}: 3 datagrams, 11 bytes in " in said


@pytest.mark.parametrize("more", [[], ["-"], ["-", "--rate", "1M"]])
def test_each_line_of_standard_input_is_a_datagram(opened, feed, sending, given_lines, more):
    rx = opened.receiver(feed)
    given_lines(b"one\n\ntwo\r\nlast")
    code, told, _ = sending(text(feed), *more)
    assert came(rx, 4) == [b"one", b"", b"two\r", b"last"]
    assert (code, told["sent"]) == (0, 4)


@pytest.mark.parametrize("size", [1, 7, 100, 1400])
def test_a_file_is_cut_into_datagrams(opened, feed, sending, tmp_path, size):
    rx = opened.receiver(feed)
    whole = os.urandom(100)
    (tmp_path / "file").write_bytes(whole)
    code, told, _ = sending(text(feed), "--file", str(tmp_path / "file"), "--size", str(size))
    expected = [whole[at : at + size] for at in range(0, 100, size)]
    assert came(rx, len(expected)) == expected
    assert (code, told["sent"], told["bytes"]) == (0, len(expected), 100)


@pytest.mark.parametrize("layout", ["moldudp64", "rtp", "cme", "offset=3,width=2,order=little"])
def test_a_synthetic_feed_is_numbered_from_1(opened, feed, sending, layout):
    rx = opened.receiver(feed)
    code, told, _ = sending(
        text(feed), "--rate", "100k", "--size", "50", "--count", "90", "--sequence", layout
    )  # fmt: skip
    found, where = came(rx, 90), _sequence.parse_sequence(layout)
    assert [where.number.unpack_from(each, where.offset)[0] for each in found] == list(range(1, 91))
    assert {len(each) for each in found} == {50}
    assert (code, told["sent"], told["asked_per_second"], told["batch"]) == (0, 90, 100_000, 20)
    rest = bytearray(found[0])
    where.stamp(rest, 33)
    assert rest == found[32]  # nothing but the number differs


def test_groups_have_their_turns_and_numbers_of_their_own(opened, feed, sending, multicast):
    first, port = feed
    groups = multicast.parse_feed(f"{first}+3:{port}").groups
    receivers = [opened.receiver((group, port)) for group in groups]
    _, told, _ = sending(
        f"{first}+3:{port}%lo", "--rate", "max", "--count", "100", "--sequence", "offset=0", "--size", "4"
    )
    expected = [34, 33, 33]
    for rx, count in zip(receivers, expected, strict=True):
        assert [int.from_bytes(each) for each in came(rx, count)] == list(range(1, count + 1))
    assert told["sent"] == 100


def test_turns_go_on_from_batch_to_batch(opened, feed, sending, multicast):
    first, port = feed
    groups = multicast.parse_feed(f"{first}+3:{port}").groups
    receivers = [opened.receiver((group, port)) for group in groups]
    sending(f"{first}+3:{port}%lo", *map(str, range(200)))
    for at, rx in enumerate(receivers):
        assert came(rx, len(range(at, 200, 3))) == [str(each).encode() for each in range(at, 200, 3)]


def test_so_many_seconds_at_a_rate_are_so_many_datagrams(opened, feed, sending):
    rx = opened.receiver(feed)
    _, told, said = sending(text(feed), "--rate", "1k", "--seconds", "0.05", "--size", "0")
    assert came(rx, 50) == [b""] * 50
    assert told["sent"] == 50
    assert "/s of 1,000/s asked for (" in said
    assert "late: datagrams by " in said
    assert told["late_max_ns"] >= told["late_p99_ns"] >= told["late_p50_ns"] >= 0


def test_as_fast_as_it_goes_ends_with_the_time(feed, sending):
    code, told, _ = sending(text(feed), "--rate", "max", "--seconds", "0.01")
    assert (code, told["asked_per_second"]) == (0, None)
    assert told["sent"] > 0
    assert told["bytes"] == 1400 * told["sent"]


def test_lines_that_come_late_are_sent_when_they_come():
    out, into = os.pipe()
    lines = Lines(out, 100)
    os.write(into, b"a\nb\nc")
    assert (lines.take(1), lines.waited) == ([b"a"], True)
    assert (lines.take(5), lines.waited) == ([b"b"], False)
    os.write(into, b"c\n")
    assert (lines.take(5), lines.waited) == ([b"cc"], True)
    os.close(into)
    assert lines.take(5) == lines.take(5) == []
    os.close(out)


def test_numbers_begin_again_where_they_end():
    made = Synthetic(1, 600, _sequence.parse_sequence("offset=0,width=1"))
    found = [bytes(each)[0] for _ in range(6) for each in made.take(100)]
    assert found == [number % 256 for number in range(1, 601)]
    assert made.take(1) == []


# How far it goes, and from where -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "ttl"), [([], 0), (["--ttl", "0"], 0)])
def test_nothing_leaves_the_host_by_the_loopback_interface(opened, feed, sending, more, ttl):
    rx = opened.receiver(feed, columns="ttl")
    _, told, _ = sending(text(feed), "x", *more)
    assert (rx.recv_batch().ttls[0], told["ttl"]) == (ttl, ttl)


@pytest.mark.parametrize("place", ["%lo", ""])
def test_a_source_is_the_address_sent_from(opened, feed, sending, place):
    rx = opened.receiver(feed, source="127.0.0.1", columns="source")
    code, *_ = sending(f"127.0.0.1@{feed[0]}:{feed[1]}{place}", "x")
    assert rx.recv_batch().source(0)[0] == "127.0.0.1"
    assert code == 0


@pytest.mark.parametrize(
    ("feed", "why"),
    [
        ("192.0.2.77@239.1.1.1%lo", "192.0.2.77 is no address of lo, which has 127.0.0.1"),
        ("192.0.2.77@239.1.1.1", "no interface has the address 192.0.2.77"),
        ("239.1.1.1%no-such-link", "no interface 'no-such-link'"),
    ],
)
def test_an_interface_and_a_source_have_to_be_here(feed, why, capsys):
    assert program.main(["send", feed, "x"]) == 1
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""


# What can't be -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x" * 65_508], "65,508 bytes are too long: a datagram to this group has 65,507 at most"),
        (["--size", "65508"], "65,507 at most"),
        (["--size", "4", "--sequence", "rtp"], "--sequence rtp needs --size 12 or more"),
        (["--sequence", "rtp2"], "a layout of sequence numbers is moldudp64, rtp"),
        (["x", "--count", "2"], "--count is for a synthetic feed"),
        (["x", "--size", "2"], "--size is for a file or a synthetic feed"),
        (["x", "--file", "y"], "either DATA or --file"),
        (["--file", "y", "--size", "0"], "at least 1"),
        (["--rate", "0"], "'0' is no integer from 1"),
        (["--ttl", "256", "x"], "from 0 to 255"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(words, why, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["send", "239.1.1.1:5000%lo", *words])
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("feed", ["[ff02::1]:5000", "[ff11::1]"])
def test_a_group_that_is_another_on_every_interface_needs_one(feed, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["send", feed, "x"])
    assert ended.value.code == 2
    assert "such a group is another on every interface (RFC 4291, 2.7): name the interface" in capsys.readouterr().err


def test_over_ipv6_a_datagram_can_be_longer(capsys):
    with pytest.raises(SystemExit):
        program.main(["send", "[ff12::1]:5000%lo", "x" * 65_528])
    assert "65,527 at most" in capsys.readouterr().err


def test_with_a_terminal_and_nothing_to_send_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(SystemExit):
        program.main(["send", "239.1.1.1:5000%lo"])
    assert "nothing to send: give DATA, -, --file or --rate" in capsys.readouterr().err


def test_a_line_that_is_too_long_ends_it_and_those_before_it_count(opened, feed, sending, given_lines, monkeypatch):
    rx = opened.receiver(feed)
    monkeypatch.setitem(send._MOST, 4, 1400)
    given_lines(b"one\ntwo\n" + b"x" * 1401 + b"\nnever\n")
    code, told, said = sending(text(feed))
    assert came(rx, 2) == [b"one", b"two"]
    assert (code, told["sent"]) == (1, 2)
    assert "%lo: line 3 has 1,401 bytes or more" in said


def test_a_line_that_is_too_long_is_named():
    out, into = os.pipe()
    os.write(into, b"one\ntwo\n" + b"x" * 11 + b"\nfour\n")
    os.close(into)
    lines = Lines(out, 10)
    assert lines.take(64) == [b"one", b"two"]
    with pytest.raises(OSError, match="line 3 has 11 bytes or more, and a datagram 10 at most") as refused:
        lines.take(64)
    assert refused.value.errno == errno.EMSGSIZE
    os.close(out)


def test_a_line_without_end_is_not_waited_for():
    out, into = os.pipe()
    os.write(into, b"x" * 11)
    with pytest.raises(OSError, match="line 1 has 11 bytes or more"):
        Lines(out, 10).take(1)
    os.close(into)
    os.close(out)


class Failing:
    """A sender whose fourth datagram fails."""

    waits, waited_ns = 2, 3_456_789

    def __init__(self) -> None:
        self.sent = 0

    def send_batch(self, buffers):
        if self.sent == 3:
            raise OSError(errno.ENETDOWN, "send_batch: Network is down")
        n = min(len(buffers), 3 - self.sent)
        self.sent += n
        return n

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_what_was_sent_before_an_error_is_told(monkeypatch, capsys):
    monkeypatch.setattr(send, "open_sender", lambda *_, **__: Failing())
    assert program.main(["send", "239.1.1.1:5000%lo", *"abcdef", "--json"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["sent"], told["bytes"], told["error"]) == (3, 3, "send_batch: Network is down")
    wanted = "multicast send: 239.1.1.1:5000%lo: send_batch: Network is down; 3 datagrams were sent before\n"
    assert wanted in said.err


def test_what_was_waited_for_is_told_where_it_was(monkeypatch, feed, sending, capsys):
    *_, said = sending(text(feed), "x")
    assert "waited" not in said
    monkeypatch.setattr(send, "open_sender", lambda *_, **__: Failing())
    _, told, said = sending("239.1.1.1+2:5000%lo", "x")
    assert (told["waits"], told["waited_ns"]) == (4, 6_913_578)  # of both groups
    assert "waited 4 times for room in the kernel's queues, 6.9 ms in all\n" in said


def test_a_sender_that_can_not_be_opened_is_of_a_feed(monkeypatch, capsys):
    def refusing(*_, **__):
        raise OSError(errno.ENETUNREACH, "open_sender 239.1.1.1: Network is unreachable")

    monkeypatch.setattr(send, "open_sender", refusing)
    assert program.main(["send", "239.1.1.1:5000%lo", "x"]) == 1
    said = capsys.readouterr()
    assert said.err == "multicast send: 239.1.1.1:5000%lo: open_sender 239.1.1.1: Network is unreachable\n"


def test_a_firewall_that_refuses_is_named_with_the_feed_and_what_was_sent(rig, multicast):
    nft = tool("nft", "nftables")
    feed = "239.195.7.9+2:41000%lo"
    rig.island.run(nft, "add table ip t; add chain ip t o { type filter hook output priority 0; }")
    try:
        rig.island.run(nft, "add rule ip t o ip daddr 239.195.7.10 drop")
        done = subprocess.run(
            rig.island.inside(sys.executable, "-P", "-m", "multicast", "send", feed, "a", "b", "--json"),
            env=python_environment(multicast),
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        rig.island.run(nft, "delete table ip t")
    error = "send_batch: Operation not permitted; a firewall of this host refused it (nft list ruleset, iptables -S)"
    told = json.loads(done.stdout)
    assert (done.returncode, told["sent"], told["error"]) == (1, 1, error)
    assert f"multicast send: {feed}: {error}; 1 datagram was sent before\n" in done.stderr


# Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_it_waits_ends_it_with_the_account(sending, feed, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    take = Synthetic.take

    def interrupted(self, most):
        if self._made == 5:
            signal.raise_signal(signal.SIGINT)
        return take(self, most)

    monkeypatch.setattr(Synthetic, "take", interrupted)
    code, told, said = sending(text(feed), "--rate", "1000", "--size", "10")
    assert (code, told["sent"], told["interrupted"], told["error"]) == (130, 5, True, None)
    assert "5 datagrams, 50 bytes" in said
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_datagrams_go_counts_them(sending, feed, monkeypatch, multicast):
    class Signalled(Failing):
        def send_batch(self, buffers):
            signal.raise_signal(signal.SIGINT)
            return len(buffers)

    monkeypatch.setattr(send, "open_sender", lambda *_, **__: Signalled())
    code, told, _ = sending(text(feed), "--rate", "max", "--size", "10")
    assert (code, told["sent"], told["interrupted"]) == (130, send.AT_ONCE, True)


def test_ctrl_c_twice_does_not_wait_for_what_goes_on():
    with pytest.raises(KeyboardInterrupt), send.Interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


# From host to host -------------------------------------------------------------------------------------------------


def test_listen_on_another_host_agrees_to_the_datagram(rig, multicast):
    """20,000 a second for a second, numbered; what the kernel dropped before `listen` had it, if any, it counts."""
    environment = python_environment(multicast)
    command = [sys.executable, "-P", "-W", "ignore::RuntimeWarning", "-m", "multicast"]
    feed, layout = "239.195.7.7:41000%feed0", ["--sequence", "offset=0,width=8", "--json"]
    with subprocess.Popen(
        rig.rx.inside(*command, "listen", feed, *layout, "-c", "20000", "-W", "30", "--interval", "0.2"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        try:
            assert json.loads(listener.stdout.readline())["state"] == "joined"
            sender = subprocess.run(
                rig.tx.inside(*command, "send", feed, *layout, "--rate", "20k", "--seconds", "1", "--size", "200"),
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            total = json.loads(listener.communicate(timeout=60)[0].splitlines()[-1])
        finally:
            listener.kill()
    told = json.loads(sender.stdout)
    assert (sender.returncode, told["sent"], told["bytes"], told["ttl"]) == (0, 20_000, 4_000_000, 1)
    assert (total["event"], total["datagrams"] + total["kernel_drops"]) == ("total", told["sent"])
    assert total["missing"] == total["kernel_drops"]
    assert (total["bytes"], total["sources"]) == (200 * total["datagrams"], 1)
    assert told["rate_error_percent"] is not None  # it is told; how small it is, is the machine's


# The page ----------------------------------------------------------------------------------------------------------


def test_what_the_page_shows_works(tmp_path, multicast):
    """Every command line, as it stands but for the program's name; files it names are made before."""
    (tmp_path / "quotes.bin").write_bytes(bytes(10_000))
    shown = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))
    assert shown.count("multicast send") >= 5
    script = "set -e\nmulticast() { " + sys.executable + ' -P -m multicast "$@"; }\n' + shown
    with feeds.of_the_pages():
        done = subprocess.run(
            ["sh", "-c", script],
            env=python_environment(multicast),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_has_every_option_and_every_key(sending, feed, capsys):
    page = PAGE.read_text("utf-8")
    _, told, _ = sending(text(feed), "x")
    assert [f"`{key}`" for key in told] == re.findall(r"^\| (`[a-z0-9_]+`) \|", page, re.MULTILINE)
    with pytest.raises(SystemExit):
        program.main(["send", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert {each for each in options if each not in page} == set()
