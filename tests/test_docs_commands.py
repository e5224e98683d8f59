"""Each command line that a page shows is one that the program takes."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest

from multicast import __main__ as program

ROOT = pathlib.Path(__file__).parent.parent
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def arguments_of(line):
    """Return what the program is given by each part of a line of shell that runs it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts = [[]]
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            parts.append([])
        else:
            parts[-1].append(word)
    for part in parts:
        if part[:1] == ["sudo"]:
            del part[0]
        if part[:3] == ["python", "-m", "multicast"]:
            yield part[3:]
        elif part[:1] == ["multicast"]:
            yield part[1:]


def command_lines():
    for page in [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]:
        for block in BLOCK.findall(page.read_text("utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                for arguments in arguments_of(line):
                    yield pytest.param(arguments, id=f"{page.relative_to(ROOT)}: {' '.join(arguments)}")


LINES = list(command_lines())


def test_lines_are_taken_apart_as_a_shell_does():
    line = "seq 3 | multicast send 'a b' > out; sudo python -m multicast interfaces  # which"
    assert list(arguments_of(line)) == [["send", "a b"], ["interfaces"]]
    assert list(arguments_of("sysctl net.core.rmem_max; pip install 'multicast-skt[cli]'")) == []


def test_each_command_is_shown_on_some_page():
    assert {arguments[0] for (arguments,) in (each.values for each in LINES) if arguments} == set(program.COMMANDS)


@pytest.mark.parametrize("arguments", LINES)
def test_a_command_line_is_taken(arguments):
    try:
        program.parsed(arguments)
    except SystemExit as ended:  # --help, --version
        assert ended.code == 0  # noqa: PT017
