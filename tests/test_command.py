"""The program as such: its exit codes, its colours, its tables, and what it says when it is held wrong."""

from __future__ import annotations

import argparse
import io
import json
import struct
import subprocess
import sys

import pytest
from net import python_environment

from multicast import __main__ as program
from multicast.cli import arguments, output

COMMAND = [sys.executable, "-P", "-m", "multicast"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_report_is_one_object_for_programs(multicast):
    done = subprocess.run(
        [*COMMAND, "--json"], env=python_environment(multicast), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert (found["version"], found["backend"]) == (multicast.__version__, multicast.BACKEND)
    assert found["capabilities"] == {
        each.name: {"works": bool(each), "why": each.why} for each in multicast.capabilities()
    }


@pytest.mark.parametrize("given", [["nothing"], ["demo", "--seconds", "x"], ["demo", "--seconds", "0.5"], ["--what"]])
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(given, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(given)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: " in said.err


def test_help_has_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f" {name} {command.SUMMARY}" in said for name, command in program.COMMANDS.items())
    assert "exit codes: 0, it went well; 1, it failed; 2, wrong usage; 130" in said


@pytest.mark.parametrize("name", program.COMMANDS)
def test_a_command_says_what_it_does(name, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main([name, "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(program.COMMANDS[name].DESCRIPTION.split()) in said
    assert "--json" in said


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(19, "listen 239.1.1.1: No such device"), 1, "multicast demo: listen 239.1.1.1: No such device\n"),
        (FileNotFoundError(2, "No such file", "x.bin"), 1, "multicast demo: [Errno 2] No such file: 'x.bin'\n"),
    ],
)
def test_how_a_command_ends(raised, code, said, monkeypatch, capsys):
    def run(_):
        raise raised

    monkeypatch.setattr(program.COMMANDS["demo"], "run", run)
    assert program.main(["demo"]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("environment", "stream", "colour"),
    [
        ({}, Terminal, True),
        ({}, io.StringIO, False),
        ({"NO_COLOR": "1"}, Terminal, False),
        ({"NO_COLOR": ""}, Terminal, True),
        ({"TERM": "dumb"}, Terminal, False),
        ({"FORCE_COLOR": "1"}, io.StringIO, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, Terminal, False),
    ],
)
def test_there_is_colour_on_a_terminal_unless_somebody_says_no(environment, stream, colour, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream())
    made = output.Output()
    assert made.paint("x", "bad") == ("\x1b[31mx\x1b[0m" if colour else "x")


def test_a_table_is_as_wide_as_its_words(capsys):
    output.Output().table(["name", "n"], [["lo", "1"], ["a longer one", "10"]], numbers=[1])
    assert capsys.readouterr().out == "name           n\nlo             1\na longer one  10\n"


def test_what_is_for_people_goes_elsewhere_than_what_is_for_programs(capsys):
    made = output.Output(as_json=True)
    made.say("hello")
    made.emit({"a": 1})
    assert capsys.readouterr() == ('{"a": 1}\n', "hello\n")
    output.Output().emit({"a": 1})
    assert capsys.readouterr().out == ""


def test_a_feed_without_a_port_has_the_usual_one():
    assert str(arguments.feed("239.1.1.1%lo")) == "239.1.1.1:1234%lo"


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (arguments.whole(1), "10k", 10_000),
        (arguments.whole(1), "2M", 2_000_000),
        (arguments.whole(0), "0", 0),
        (arguments.seconds(0), "0.5", 0.5),
    ],
)
def test_numbers_are_read(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "why"),
    [
        (arguments.feed, "10.0.0.1:5000", "10.0.0.1 is no multicast group"),
        (arguments.whole(1), "0", "'0' is no integer from 1"),
        (arguments.whole(1), "k", "'k' is no integer"),
        (arguments.whole(1, 5), "6", "from 1 to 5"),
        (arguments.whole(1), "٣", "is no integer"),
        (arguments.whole(1), "9" * 5000, "is no integer"),
        (arguments.seconds(0), "nan", "is no number of seconds"),
        (arguments.seconds(0, 5), "inf", "is no number of seconds from 0 to 5"),
        (arguments.seconds(0), "soon", "'soon' is no number of seconds"),
    ],
)
def test_other_words_are_refused(read, text, why):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        read(text)
    assert why in str(refused.value)


def test_on_a_terminal_a_line_takes_the_place_of_the_one_before(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    made = output.Output()
    made.update("one")
    made.update("two")
    made.keep()
    assert sys.stdout.getvalue() == "\rone\x1b[K\rtwo\x1b[K\n"


def test_a_line_that_is_replaced_is_never_two(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(output.Output, "width", 10)
    made = output.Output()
    made.update("123456789")
    made.update("1234567890")
    assert sys.stdout.getvalue() == "\r123456789\x1b[K\r12345678…\x1b[K"


def test_where_no_line_was_replaced_none_is_kept(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    made = output.Output()
    made.keep()
    made.update("x")
    made.keep()
    made.keep()
    assert sys.stdout.getvalue() == "\rx\x1b[K\n"


def test_a_paragraph_is_broken_between_words_on_a_terminal_alone(monkeypatch, capsys):
    made = output.Output()
    text = "one two a-longer-word \x1b[1mfour\x1b[0m five six"
    made.paragraph(text)
    monkeypatch.setattr(output.Output, "width", 9)
    made.paragraph(text)
    made.paragraph("")
    assert capsys.readouterr().out == f"{text}\none two\na-longer-word\n\x1b[1mfour\x1b[0m five\nsix\n\n"


def test_a_table_that_does_not_fit_is_lines_below_each_row(monkeypatch, capsys):
    monkeypatch.setattr(output.Output, "width", 13)
    rows = [["lo", "1"], ["a longer one", "10"]]
    output.Output().table(["name", "count"], rows, numbers=[1])
    assert capsys.readouterr().out == "lo\n  count: 1\na longer one\n  count: 10\n"
    monkeypatch.setattr(output.Output, "width", 19)
    output.Output().table(["name", "count"], rows, numbers=[1])
    assert capsys.readouterr().out == "name          count\nlo                1\na longer one     10\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are Unix's")
@pytest.mark.parametrize(("columns", "width"), [(43, 43), (0, None)])
def test_the_width_is_that_of_the_terminal_now(columns, width, monkeypatch):
    import fcntl
    import pty
    import termios

    near, far = pty.openpty()
    with open(near, "rb"), open(far, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        made = output.Output()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        assert made.width == width
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert output.Output().width is None  # it does not tell


def test_elsewhere_each_line_stays(capsys):
    made = output.Output()
    made.update("one")
    made.update("two")
    made.keep()
    assert capsys.readouterr().out == "one\ntwo\n"


OF_UNIX = """
import sys
import multicast
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
from multicast.__main__ import COMMANDS
print(len(COMMANDS))
"""


def test_the_commands_load_where_python_lacks_what_only_unix_has(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-c", OF_UNIX],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, f"{len(program.COMMANDS)}\n"), done.stderr
