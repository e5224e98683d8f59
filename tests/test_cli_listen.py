"""`multicast listen`: what it counts, what it prints, what it draws, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import feeds
import pytest
from links import IPV4, PORT
from net import python_environment, repeating
from rich.console import Console

from multicast import __main__ as program
from multicast._sequence import CME, MOLDUDP64
from multicast.cli import dump, listen, meter, picture

pytest_plugins = ["rig_fixtures", "healing_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is measured here is what Linux tells")

DEADLINE = 30
SMALL = ["--receive-buffer", "65536"]  # which any user may have: a warning would be an error here
PAGE = Path(__file__).parent.parent / "docs" / "commands" / "listen.md"


def stamped(layout, number, size=40):
    datagram = bytearray(size)
    layout.stamp(datagram, number)
    return bytes(datagram)


def text_of(feed):
    return f"{feed[0]}:{feed[1]}%lo"


@pytest.fixture
def measured(multicast, feed):
    """Make a meter of the feed, or of the range from it on, with the backend under test."""
    with contextlib.ExitStack() as closing:

        def make(count=1, **options):
            asked = multicast.parse_feed(f"{feed[0]}+{count}:{feed[1]}%lo")
            made = meter.Meter(asked, multicast.open_receiver, **options)
            closing.callback(made.close)
            return made

        yield make


def take(made, count, most=None):
    """Have a meter take so many datagrams, from whichever of its receivers."""
    taken = 0
    deadline = time.monotonic() + DEADLINE
    while taken < count:
        assert time.monotonic() < deadline
        for each in made.receivers:
            with contextlib.suppress(BlockingIOError):
                taken += made.take(each, each.recv_batch(0), most)


# Counting


def test_a_meter_counts_what_came(measured, opened, feed):
    made = measured(sequence=MOLDUDP64)
    sender = opened.sender(feed)
    for number in (1, 2, 4):
        sender.send(stamped(MOLDUDP64, number))
    take(made, 3)
    first = made.interval()
    assert (first["datagrams"], first["bytes"], first["sources"], first["kernel_drops"]) == (3, 120, 1, 0)
    assert (first["gaps"], first["missing"], first["clock"]) == (1, 1, "kernel")
    assert 0 <= first["mean_gap_ns"] <= first["max_gap_ns"] < DEADLINE * 10**9
    sender.send(stamped(MOLDUDP64, 3))
    take(made, 1)
    second, total = made.interval(), made.total()
    assert (second["datagrams"], second["missing"], second["late"]) == (1, 0, 1)
    assert second["mean_gap_ns"] == second["max_gap_ns"]  # to the one before it, which was of the first interval
    assert (total["datagrams"], total["bytes"]) == (4, 160)
    assert total["max_gap_ns"] == max(first["max_gap_ns"], second["max_gap_ns"])
    assert len(made.history) == 2


def test_without_data_there_are_no_gaps_and_no_batches(measured):
    values = measured().interval()
    assert (values["datagrams"], values["mean_batch"], values["mean_gap_ns"], values["max_gap_ns"]) == (
        0,
        None,
        None,
        None,
    )
    assert values["missing"] is None


def test_sources_are_told_apart_and_have_numbers_of_their_own(measured, opened, feed):
    made = measured(sequence=CME)
    senders = [opened.sender(feed), opened.sender(feed)]
    for number in range(3):
        for at, each in enumerate(senders):
            each.send(stamped(CME, 1000 * at + number))
    take(made, 6)
    values = made.interval()
    assert (values["sources"], values["gaps"], values["duplicates"]) == (2, 0, 0)


def test_a_range_of_more_groups_than_a_socket_can_join_is_one_row(measured, opened, feed, monkeypatch):
    monkeypatch.setattr(meter._sysctl, "value", lambda name: 2)
    made = measured(5, sequence=MOLDUDP64)
    assert [len(each.memberships) for each in made.receivers] == [2, 2, 1]
    for group in made.feed.groups:  # each begins at the same number, in the same session
        sender = opened.sender((group, feed[1]))
        sender.send(stamped(MOLDUDP64, 1))
        sender.send(stamped(MOLDUDP64, 2))
    take(made, 10)
    values = made.interval()
    assert (values["datagrams"], values["gaps"], values["duplicates"]) == (10, 0, 0)


def test_where_the_system_stamps_nothing_the_arrival_is_taken(multicast, feed):
    def poor(*arguments, timestamps=None, **options):
        if timestamps is not None:
            raise OSError(meter._UNTOLD[0], "this system tells the source alone")
        return multicast.open_receiver(*arguments, **options)

    made = meter.Meter(multicast.parse_feed(text_of(feed)), poor)
    try:
        with multicast.open_sender(*feed, interface="lo", ttl=0) as sender:
            sender.send(b"1")
            sender.send(b"2")
        take(made, 2)
        assert made.total()["clock"] == "arrival"
    finally:
        made.close()


# Drawing


def row(feed="239.1.1.1:5000%eth0", state="", **changed):
    values = {
        "datagrams": 199_990,
        "bytes": 39_998_000,
        "seconds": 1.0,
        "datagrams_per_second": 199_990.3,
        "mbit_per_second": 319.984,
        "mean_batch": 41.3,
        "mean_gap_ns": 5000,
        "max_gap_ns": 4_820_000,
        "kernel_drops": 12_345,
        "queued_bytes": 5,
        "receive_buffer_bytes": 1000,
        "sources": 1,
        "error": None,
        **dict.fromkeys(("gaps", "missing", "late", "duplicates", "restarts", "unnumbered"), 0),
    }
    return meter.Row(feed=feed, state=state, values=values | changed, history=tuple(range(60)))


@pytest.mark.parametrize("width", [1, 10, 40, 80, 160])
@pytest.mark.parametrize("state", ["", "interface gone"])
def test_no_line_is_longer_than_the_terminal_is_wide(width, state):
    large = dict.fromkeys(
        ("datagrams_per_second", "mbit_per_second", "kernel_drops", "sources", "missing"), 987_654_321_0
    )
    rows = [row(), row("[ff3e:1234:5678:9abc::1]+100:65535%an-interface", state, **large, max_gap_ns=10**14 - 1)]
    lines = picture.frame(rows, title="0:00:01  Ctrl-C ends it", width=width).plain.split("\n")
    assert max(map(len, lines)) <= max(width, 8)  # of the last column the number stays whole
    assert len(lines) == 6


def test_a_frame_at_80_columns():
    drawn = picture.frame([row()], width=80).plain.split("\n")
    assert drawn[0] == "dgrams/s   Mbit/s  batch     gap  max gap   drops  queue  sources  missing"
    assert drawn[2] == "  199990   319.98   41.3  5.00µs   4.82ms   12345     1%        1        0"
    assert re.fullmatch(r"239\.1\.1\.1:5000%eth0  [ ▁▂▃▄▅▆▇█]{59}", drawn[1])
    assert drawn[1].endswith("█")


def test_narrow_frames_keep_the_numbers_that_matter_most():
    (head, _, numbers) = picture.frame([row()], width=40).plain.split("\n")
    assert head.split() == ["dgrams/s", "Mbit/s", "drops", "missing"]
    assert numbers.split() == ["199990", "319.98", "12345", "0"]


def test_nobody_who_did_not_ask_is_shown_what_is_missing():
    (head, _, numbers) = picture.frame([row(missing=None)], width=80).plain.split("\n")
    assert (head.split()[-1], numbers.split()[-1]) == ("sources", "1")
    assert "missing" not in picture.line(row(missing=None))


def test_a_feed_that_failed_says_why_as_far_as_there_is_room():
    failed = row(state="failed", error="recv_batch: Software caused connection abort")
    drawn = [picture.frame([failed], width=width).plain.split("\n")[1] for width in (120, 30)]
    assert drawn[0].startswith("239.1.1.1:5000%eth0  failed: recv_batch: Software caused connection abort  ▃")
    assert drawn[1] == "239.1.1.1:5000%eth0  failed: …"


def test_more_feeds_than_lines_are_said_to_be_there():
    lines = picture.frame([row()] * 10, title="t", width=80, height=8).plain.split("\n")
    assert len(lines) == 7
    assert lines[-1] == "and 8 more, for which there is no room"


def test_a_frame_can_be_exported():
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(picture.frame([row(state="interface gone")], width=80))
    assert "interface" in console.export_svg(title="multicast listen")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (999_999, "999999"), (1_000_000, "1.00M"), (12_345_678, "12.3M"), (9.9e9, "9.90G")],
)
def test_numbers_stay_short(value, text):
    assert picture.amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0ns"),
        (999, "999ns"),
        (1000, "1.00µs"),
        (999_600, "1.00ms"),
        (12.34e9, "12.3s"),
        (1e13, "10000s"),
    ],
)
def test_times_stay_short(value, text):
    assert picture.duration(value) == text


def test_a_sparkline_is_as_high_as_its_highest():
    assert picture.sparkline([0, 1, 8], 4) == "  ▁█"
    assert picture.sparkline([0, 0], 2) == "  "
    assert picture.sparkline([1, 2, 3], 0) == ""


# Dumping


def test_hex_is_as_by_xxd():
    data = bytes(range(60, 80))
    assert list(dump.hexadecimal(data)) == [
        "00000000: 3c3d 3e3f 4041 4243 4445 4647 4849 4a4b  <=>?@ABCDEFGHIJK",
        "00000010: 4c4d 4e4f                                LMNO",
    ]
    lines = dump.dumped("hex", data, 5, "10.0.0.1:99", "239.1.1.1:5000", 20).decode().splitlines()
    assert re.fullmatch(r"# \d\d:\d\d:\d\d\.000000005 10\.0\.0\.1:99 > 239\.1\.1\.1:5000 length 20", lines[0])
    assert len(lines) == 3


def test_text_is_a_line_a_datagram_that_no_terminal_obeys():
    assert dump.dumped("text", b"a\x1b[2J\r\nb\xff\n", 0, "", "", 0) == b"a\\x1b[2J\\r\\nb\\xff\n"
    assert dump.dumped("raw", b"\x00\n", 0, "", "", 0) == b"\x00\n"


# The command


@contextlib.contextmanager
def sending(opened, feed, make=lambda number: stamped(MOLDUDP64, number)):
    """Send to a feed until the end of the block, 1,000 datagrams a second at most; numbers from 1 on."""
    sender, numbers = opened.sender(feed), itertools.count(1)
    with repeating(lambda: sender.send(make(next(numbers)))):
        yield


def command(multicast, *arguments, **options):
    words = [sys.executable, "-P", "-m", "multicast", "listen", *arguments]
    return subprocess.Popen(words, env=python_environment(multicast), stderr=subprocess.PIPE, **options)


def ended(process):
    said, complained = process.communicate(timeout=DEADLINE)
    return process.returncode, said, complained.decode()


def test_a_count_ends_it_with_totals_for_programs(multicast, opened, feed):
    with sending(opened, feed):
        code, said, _ = ended(
            command(multicast, text_of(feed), "-c", "7", "--sequence", "moldudp64", "--json", stdout=subprocess.PIPE)
        )
    found = [json.loads(each) for each in said.splitlines()]
    assert code == 0
    assert (found[-1]["event"], found[-1]["feed"], found[-1]["datagrams"]) == ("total", text_of(feed), 7)
    assert found[-1]["missing"] == 0
    documented = re.findall(r"^\| ([a-z_, ]+) \| ", PAGE.read_text().partition("## JSON")[2], re.MULTILINE)
    assert {name for each in documented for name in each.split(", ")} - {"key"} == found[-1].keys()


def test_nothing_by_the_timeout_is_a_failure_that_says_what_to_type(feed, capsys):
    assert program.main(["listen", text_of(feed), *SMALL, "--timeout", "0.05", "-W", "20"]) == 1
    said = capsys.readouterr()
    assert f"nothing came from {text_of(feed)} within 0.05 s; `multicast doctor {text_of(feed)}` finds" in said.err
    assert "0 datagrams" in said.out


def test_time_is_up_without_a_failure_and_lines_tell_how_it_goes(feed, capsys):
    assert program.main(["listen", text_of(feed), *SMALL, "-W", "0.25", "--interval", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [each.startswith(f"{text_of(feed)}  0/s  0.00 Mbit/s  batch -") for each in lines[:2]] == [True, True]
    assert lines[2].startswith(f"{text_of(feed)}: 0 datagrams, 0 bytes in ")


@pytest.mark.parametrize(("numbers", "code"), [([1, 2, 3], 0), ([1, 3, 2], 0), ([1, 3, 4], 1)])
def test_what_is_missing_at_the_end_is_a_failure_if_one_wants(numbers, code, multicast, feed, monkeypatch):
    told = iter(numbers)

    def opening(*arguments, **options):
        receiver = opener(*arguments, **options)
        with multicast.open_sender(*feed, interface="lo", ttl=0) as sender:
            for each in told:
                sender.send(stamped(MOLDUDP64, each))
        return receiver

    opener = multicast.open_receiver
    monkeypatch.setitem(sys.modules, "multicast", multicast)
    monkeypatch.setattr(multicast, "open_receiver", opening)
    given = program.parsed(
        [
            "listen",
            text_of(feed),
            *SMALL,
            "-c",
            "3",
            "--sequence",
            "moldudp64",
            "--fail-on-gap",
            "--timeout",
            str(DEADLINE),
        ]
    )
    assert listen.run(given) == code


def test_wrong_usage_is_refused(feed, capsys):
    assert program.main(["listen", text_of(feed), "--fail-on-gap"]) == 2
    assert "needs --sequence" in capsys.readouterr().err
    for wrong in (["--sequence", "x"], ["--dump", "hex", "--json"], ["-c", "0"], ["--interval", "0"]):
        with pytest.raises(SystemExit) as ended_with:
            program.main(["listen", text_of(feed), *wrong])
        assert ended_with.value.code == 2


@pytest.mark.parametrize("feed", ["[ff02::1]:5000", "[ff11::1]"])
def test_a_group_that_is_another_on_every_interface_needs_one(feed, capsys):
    with pytest.raises(SystemExit) as ended_with:
        program.main(["listen", feed])
    assert ended_with.value.code == 2
    assert "such a group is another on every interface (RFC 4291, 2.7): name the interface" in capsys.readouterr().err


@pytest.mark.parametrize("form", dump.FORMS)
def test_a_dump_has_exactly_so_many_datagrams_and_nothing_else(form, multicast, opened, feed):
    with sending(opened, feed, lambda number: b"%09d\n" % number):
        code, said, complained = ended(
            command(multicast, text_of(feed), "-c", "5", "--dump", form, stdout=subprocess.PIPE)
        )
    assert (code, "5 datagrams, 50 bytes" in complained) == (0, True)
    lines = said.splitlines()
    if form == "hex":
        heads, lines = lines[::2], [each[-10:-1] for each in lines[1::2]]
        group = re.escape(f"{feed[0]}:{feed[1]}".encode())
        assert all(re.fullmatch(rb"# [\d:.]+ [\d.]+:\d+ > " + group + rb" length 10", each) for each in heads)
    numbers = [int(each) for each in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_who_reads_no_more_ends_it_quietly(multicast, opened, feed):
    with sending(opened, feed, lambda number: b"hello"):
        process = command(multicast, text_of(feed), "--dump", "text", stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"hello\n"
        process.stdout.close()
        process.stdout = None
        code, _, complained = ended(process)
    assert code == 141
    assert "Traceback" not in complained


def test_ctrl_c_ends_it_with_the_summary(multicast, opened, feed):
    with sending(opened, feed):
        process = command(multicast, text_of(feed), "--interval", "0.1", stdout=subprocess.PIPE)
        assert process.stdout.readline().startswith(text_of(feed).encode())
        process.send_signal(signal.SIGINT)
        code, said, complained = ended(process)
    assert (code, "Traceback" in complained) == (130, False)
    assert re.search(rb": \d+ datagrams, \d+ bytes in [\d.]+ s\n", said)


@pytest.mark.parametrize("form", dump.FORMS)
def test_what_can_not_be_written_ends_it_with_what_came_until_then(form, multicast, opened, feed):
    with sending(opened, feed), open("/dev/full", "wb") as full:
        code, _, complained = ended(command(multicast, text_of(feed), "--dump", form, stdout=full))
    assert code == 1
    assert re.search(r": \d+ datagrams, \d+ bytes in ", complained)
    assert complained.endswith("multicast listen: No space left on device\n")


def drawn_until(terminal, wanted, seen=b""):
    """Read what is drawn until a pattern is in it."""
    deadline = time.monotonic() + DEADLINE
    while not re.search(wanted, seen):
        assert time.monotonic() < deadline, seen
        seen += os.read(terminal, 65_536)
    return seen


BREAKABLE = """
import contextlib, signal, socket, sys
import multicast
from multicast import __main__ as program

def opening(*arguments, **options):
    receiver = opener(*arguments, **options)
    def broken(*_):
        with contextlib.suppress(OSError):
            receiver.socket.shutdown(socket.SHUT_RD)
    signal.signal(signal.SIGUSR1, broken)
    return receiver

opener, multicast.open_receiver = multicast.open_receiver, opening
sys.exit(program.run())
"""


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        (signal.SIGINT, 130, rb".*\d+ datagrams, "),
        (signal.SIGTERM, 143, rb""),
        (signal.SIGUSR1, 1, rb".*\d+ datagrams, .*\(failed\).*multicast listen: .*: recv_batch: the socket was shut"),
    ],
)
def test_on_a_terminal_it_draws_and_follows_its_size_and_leaves_it_as_it_was(end, code, last, multicast, opened, feed):
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = python_environment(multicast) | {"TERM": "xterm", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    run = ["-c", BREAKABLE] if end is signal.SIGUSR1 else ["-m", "multicast"]
    words = [sys.executable, "-P", *run, "listen", text_of(feed), "--interval", "0.1"]
    try:
        with sending(opened, feed):
            process = subprocess.Popen(
                words, env=environment, stdin=far, stdout=far, stderr=far, start_new_session=True
            )
            drawn_until(near, rb"(?s)max gap   drops  queue.*\d+\.\d\dms")
            fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("4H", 24, 30, 0, 0))
            drawn_until(near, rb"dgrams/s   Mbit/s   drops[^ ]")
            process.send_signal(end)
            drawn_until(near, rb"(?s)\x1b\[\?1049l" + last)
            assert process.wait(DEADLINE) == code
    finally:
        os.close(near)
        os.close(far)


def test_an_interface_that_goes_away_is_told_and_comes_back(multicast, hosts, link):
    words = [
        sys.executable,
        "-P",
        "-m",
        "multicast",
        "listen",
        f"{IPV4[0]}:{PORT}%feed0",
        "--json",
        "--interval",
        "0.1",
    ]
    process = subprocess.Popen(
        hosts.rx.inside(*words),
        env=python_environment(multicast),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def until(state):
        deadline = time.monotonic() + DEADLINE
        while (told := json.loads(process.stdout.readline()))["state"] != state:
            assert time.monotonic() < deadline, told

    try:
        until("joined")
        link.delete()
        until("interface gone")
        link.make()
        until("joined")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_without_rich_there_are_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert listen._console() is None


def test_the_command_lines_of_its_page_work():
    """All at once, each of which takes a second; on the backend that is the default, as for who reads them."""
    shown = re.findall(r"^multicast (.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(shown) == 6
    import multicast

    environment = python_environment(multicast, "auto")
    with feeds.of_the_pages():
        running = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", "multicast", *each.split()],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for each in shown
        ]
        assert [(each.communicate(timeout=DEADLINE)[1].count(b"Traceback"), each.returncode) for each in running] == [
            (0, 0)
        ] * len(shown)
