"""The README's pictures: a script makes each of them, and a reader's browser fetches nothing for them."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import re
import sys
import time
import types
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pictures are of Linux")

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PICTURES = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
HEADINGS = {"dgrams/s", "Mbit/s", "batch", "gap", "max", "drops", "queue", "sources", "missing"}
ACTIVE = {"script", "foreignObject", "image", "iframe", "feImage"}


def loaded(path):
    spec = importlib.util.spec_from_file_location(f"{path.stem}_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def from_elsewhere(svg):
    """Return what a well-formed SVG has that is not in it, or that does more than to show."""
    found = re.findall(r"@import|@font-face", svg) + re.findall(r"url\(\s*(?!['\"]?#)[^)]*\)", svg)
    for element in ET.fromstring(svg).iter():
        name = element.tag.rpartition("}")[2]
        found += [name] if name in ACTIVE else []
        for key, value in element.attrib.items():
            if key.rpartition("}")[2] in ("href", "src") and not value.startswith("#"):
                found.append(value)
    return found


def words_of(svg):
    """Return the words that it shows."""
    texts = (element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))
    return {word for text in texts for word in text.split()}


@pytest.fixture
def dev():
    return loaded(ROOT / "dev.py")


@pytest.fixture
def listen():
    return loaded(ROOT / "docs" / "pictures" / "listen.py")


# What is shown


def test_the_readme_shows_what_the_script_makes(dev):
    assert list(dev.PICTURES.values()) == PICTURES
    assert all(re.search(rf"python3 dev\.py pictures {word}", README) for word in dev.PICTURES)


@pytest.mark.parametrize("path", PICTURES)
def test_a_picture_needs_nothing_from_elsewhere(path):
    assert from_elsewhere((ROOT / path).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        ('<a href="https://example.com/">x</a>', "https://example.com/"),
        ('<image width="9" height="9"/>', "image"),
        ("<script>x</script>", "script"),
        ("<style>.a { src: url('https://example.com/f.woff') }</style>", "url('https://example.com/f.woff')"),
        ("<style>@font-face { font-family: x }</style>", "@font-face"),
    ],
)
def test_what_comes_from_elsewhere_is_found(inside, found):
    assert from_elsewhere(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}<g clip-path="url(#a)"/></svg>') == [found]


def test_the_pictures_show_what_they_are_of(dev):
    shown = {name: words_of((ROOT / path).read_text("utf-8")) for name, path in dev.PICTURES.items()}
    assert shown["listen"] >= HEADINGS
    assert {"socket.recv_into", "recvmmsg"} <= shown["benchmark"]


# How they are made


@pytest.mark.parametrize(
    ("asked", "made"), [([], ["listen", "drain"]), (["listen"], ["listen"]), (["benchmark"], ["drain"])]
)
def test_dev_py_makes_those_that_are_asked_for(dev, monkeypatch, asked, made):
    ran, installed = [], []
    monkeypatch.setattr(dev, "set_up", installed.append)
    monkeypatch.setattr(
        dev.subprocess, "run", lambda command, **_: ran.append(command) or types.SimpleNamespace(returncode=0)
    )
    monkeypatch.setattr(dev, "code_of", lambda command, **_: ran.append(command) or 0)
    assert dev.pictures(asked) == 0
    commands = {
        "listen": [dev.PYTHON, "-P", ROOT / "docs" / "pictures" / "listen.py"],
        "drain": [dev.PYTHON, "-P", ROOT / "benchmarks", "drain", "--plots", ROOT / "docs" / "plots"],
    }
    assert [list(map(str, each)) for each in ran] == [list(map(str, commands[each])) for each in made]
    needs = {"listen": ["cli"], "drain": ["bench", "plots"]}
    assert installed == [extra for each in made for extra in needs[each]]


def test_dev_py_knows_no_other_picture(dev, capsys):
    with pytest.raises(SystemExit) as ended:
        dev.pictures(["sunset"])
    assert ended.value.code == 2
    assert "no picture sunset; there are listen, benchmark" in capsys.readouterr().err


def test_a_second_of_feeds_makes_a_picture(listen, feed, tmp_path):
    group, port = feed
    listen.make(tmp_path / "listen.svg", 1, f"{group}+5:{port}%lo")
    svg = (tmp_path / "listen.svg").read_text("utf-8")
    assert from_elsewhere(svg) == []
    assert words_of(svg) >= HEADINGS | {f"{group}:{port}%lo"}
    assert ROOT / loaded(ROOT / "dev.py").PICTURES["listen"] == listen.PICTURE


def test_each_feed_but_the_last_has_senders(listen, tmp_path):
    feeds = [f"239.1.1.{number}:5000%lo" for number in range(1, 6)]
    chains = listen.senders(feeds, 1, tmp_path)
    assert sorted(next(word for word in chain[0] if word in feeds) for chain in chains) == sorted(
        [*feeds[:4], feeds[1]]
    )


def test_the_feed_with_gaps_goes_on_after_each(listen, tmp_path):
    listen.write_with_gaps(tmp_path / "file", 20_000)
    datagrams = (tmp_path / "file").read_bytes()
    assert len(datagrams) == 20_000 * listen.SIZE
    layout = listen.MOLDUDP64
    numbers = [
        layout.number.unpack_from(datagrams, at + layout.offset)[0] for at in range(0, len(datagrams), listen.SIZE)
    ]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert min(steps) == 1 < max(steps)


def test_the_last_frame_is_what_stays(listen):
    frames = (
        "\x1b[?1049h\x1b[Hfirst\r\n    \x1b[?25l\x1b[H\x1b[1;36msecond\x1b[0m\r\n  two\r\n   \r\n\x1b[?25h\x1b[?1049l"
    )
    frame = listen.last_frame(f"{frames}summary\r\n")
    assert frame.plain == "second\n  two"
    assert "second" in words_of(listen.as_svg(frame))


def test_without_a_frame_there_is_no_picture(listen):
    for written in ("", "239.1.1.1:5000%lo  0/s\r\n", "\x1b[Hnever left"):
        with pytest.raises(SystemExit, match="drew nothing"):
            listen.last_frame(written)


def test_who_does_not_listen_has_no_picture(listen, tmp_path):
    with pytest.raises(SystemExit, match="multicast listen ended with 1"):
        listen.make(tmp_path / "listen.svg", 0.1, "239.1.1.1+5:5000%nosuch0")
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_send_makes_no_picture(listen):
    with (
        pytest.raises(SystemExit, match="multicast send ended with 3"),
        listen.sending([[[sys.executable, "-c", "raise SystemExit(3)"]]]),
    ):
        pass


def test_a_program_that_does_not_end_is_not_waited_for(listen):
    ours, its = listen.pty.openpty()
    try:
        with pytest.raises(SystemExit, match="has not ended in time"):
            listen.read_some(ours, time.monotonic())
    finally:
        os.close(ours)
        os.close(its)


def test_it_says_that_it_needs_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(SystemExit, match=r"needs rich.*multicast-skt\[cli\]"):
        loaded(ROOT / "docs" / "pictures" / "listen.py")
