"""`multicast listen` where receiving fails: what was counted is shown, the feed is named, and the others go on."""

from __future__ import annotations

import contextlib
import json
import socket
import sys

import pytest

from multicast import __main__ as program
from multicast.cli import meter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is measured here is what Linux tells")

DEADLINE = 30
SMALL = ["--receive-buffer", "65536"]  # which any user may have: a warning would be an error here


@pytest.fixture
def breaking(multicast, feed, monkeypatch):
    """Have the command use the backend under test, with feeds that get datagrams and then a socket that is shut down.

    Called with how many each gets, by its number after the feed's; one that gets none is left alone.
    """
    opener = multicast.open_receiver

    def set_up(*counts):
        def opening(group, port, **options):
            receiver = opener(group, port, **options)
            count = counts[port - feed[1]]
            to = group if isinstance(group, str) else group[0]
            with multicast.open_sender(to, port, interface="lo", ttl=0) as sender:
                for number in range(count):
                    sender.send(b"%d" % number)
            if count:
                with contextlib.suppress(OSError):  # ENOTCONN, and yet it is: net/ipv4/af_inet.c
                    receiver.socket.shutdown(socket.SHUT_RD)
            return receiver

        monkeypatch.setitem(sys.modules, "multicast", multicast)
        monkeypatch.setattr(multicast, "open_receiver", opening)
        return [f"{feed[0]}:{feed[1] + number}%lo" for number in range(len(counts))]

    return set_up


def test_all_feeds_failing_ends_it_with_what_came_until_then(breaking, capsys):
    feeds = breaking(3, 2)
    assert program.main(["listen", *feeds, *SMALL, "-W", str(DEADLINE), "--json"]) == 1
    said = capsys.readouterr()
    found = [json.loads(each) for each in said.out.splitlines()]
    assert [(each["event"], each["feed"], each["datagrams"], each["state"]) for each in found] == [
        ("total", feeds[0], 3, "failed"),
        ("total", feeds[1], 2, "failed"),
    ]
    assert {each["error"] for each in found} == {"recv_batch: the socket was shut down for reading"}
    for each in feeds:
        assert f"multicast listen: {each}: recv_batch: the socket was shut down for reading\n" in said.err


def test_a_feed_that_fails_leaves_the_others_to_go_on(breaking, multicast, feed, monkeypatch, capsys):
    feeds = breaking(3, 0)
    fail = meter.Meter.fail

    def failing(self, error):
        fail(self, error)
        with multicast.open_sender(feed[0], feed[1] + 1, interface="lo", ttl=0) as sender:
            sender.send(b"later")

    monkeypatch.setattr(meter.Meter, "fail", failing)
    words = [*SMALL, "-c", "4", "-W", str(DEADLINE), "--timeout", str(DEADLINE - 1)]
    assert program.main(["listen", *feeds, *words]) == 1
    said = capsys.readouterr()
    assert f"{feeds[0]}: 3 datagrams, 3 bytes in " in said.out
    assert " s (failed)\n" in said.out
    assert f"{feeds[1]}: 1 datagrams, 5 bytes in " in said.out
    assert said.err.count("multicast listen: ") == 1


def test_a_feed_that_failed_was_not_silent(breaking, monkeypatch, capsys):
    """What --timeout finds out is said of those that could have had something."""
    feeds = breaking(1, 0)
    monkeypatch.setattr(meter.Meter, "datagrams", 0)
    assert program.main(["listen", *feeds, *SMALL, "--timeout", "0.2", "-W", str(DEADLINE)]) == 1
    said = capsys.readouterr().err
    assert [each for each in feeds if f"nothing came from {each}" in said] == feeds[1:]


def test_of_several_sockets_of_a_feed_the_first_that_fails_ends_it(breaking, feed, monkeypatch, capsys):
    breaking(2)
    monkeypatch.setattr(meter._sysctl, "value", lambda name: 1)
    assert program.main(["listen", f"{feed[0]}+3:{feed[1]}%lo", *SMALL, "-W", str(DEADLINE)]) == 1
    said = capsys.readouterr()
    assert said.err.count("shut down for reading") == 1
    assert "(failed)" in said.out
