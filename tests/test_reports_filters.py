"""What blocking a source and setting a whole source filter put on the wire.

Owns what is captured at tx while rx changes its filter, when nothing of an earlier change is still to be repeated: that
would be told together with this one. What is due is the table of RFC 3376, 5.1, and the same of RFC 3810, 6.1: mode and
sources before, mode and sources after, and the records.
"""

from __future__ import annotations

import sys

import pytest
from capture import Capture
from protocols import ALLOW, BLOCK, TO_EXCLUDE, TO_INCLUDE
from wire import general_query

pytest_plugins = ["rig_fixtures", "report_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_000


@pytest.fixture
def feed(rx, wire, nothing_more, protocol, group):
    """A socket that has joined the group from any source, of which all is reported."""
    feed = rx.plain(protocol.any, PORT)
    feed.join(group, interface="feed0")
    nothing_more(group, {TO_EXCLUDE: set()})
    return feed


def named(protocol, letters: str) -> set[str]:
    """The sources a, b and c."""
    return {protocol.sources["abc".index(letter)] for letter in letters}


def test_each_source_blocked_and_unblocked_is_reported(feed, wire, nothing_more, protocol, group):
    """EXCLUDE() to EXCLUDE(A): BLOCK(A); EXCLUDE(A,B) to EXCLUDE(B): ALLOW(A)."""
    first, second, _ = protocol.sources
    feed.verb("block_source", group=group, source=first, interface="feed0")
    nothing_more(group, {TO_EXCLUDE: set(), BLOCK: {first}})
    feed.verb("block_source", group=group, source=second, interface="feed0")
    nothing_more(group, {TO_EXCLUDE: set(), BLOCK: {first, second}})
    feed.verb("unblock_source", group=group, source=first, interface="feed0")
    nothing_more(group, {TO_EXCLUDE: set(), BLOCK: {first, second}, ALLOW: {first}})
    wire.put(general_query(protocol.router))
    answer = protocol.record("MODE_IS_EXCLUDE", group, second)
    assert answer in wire.until(lambda seen: answer in seen, group=group)
    feed.leave(group, interface="feed0")
    wire.until(lambda seen: protocol.record(TO_INCLUDE, group) in seen, group=group)


CHANGES = {
    "EXCLUDE() to INCLUDE(A,B)": ("exclude", "", "include", "ab", {TO_INCLUDE: "ab"}),
    "EXCLUDE(A) to INCLUDE(A)": ("exclude", "a", "include", "a", {TO_INCLUDE: "a"}),
    "EXCLUDE(A) to INCLUDE()": ("exclude", "a", "include", "", {TO_INCLUDE: ""}),
    "EXCLUDE() to EXCLUDE(A,B)": ("exclude", "", "exclude", "ab", {BLOCK: "ab"}),
    "EXCLUDE(A,B) to EXCLUDE(B,C)": ("exclude", "ab", "exclude", "bc", {ALLOW: "a", BLOCK: "c"}),
    "EXCLUDE(A,B) to EXCLUDE()": ("exclude", "ab", "exclude", "", {ALLOW: "ab"}),
    "INCLUDE(A,B) to INCLUDE(B,C)": ("include", "ab", "include", "bc", {ALLOW: "c", BLOCK: "a"}),
    "INCLUDE(A,B) to INCLUDE(A)": ("include", "ab", "include", "a", {BLOCK: "b"}),
    "INCLUDE(A,B) to INCLUDE()": ("include", "ab", "include", "", {BLOCK: "ab"}),
    "INCLUDE(A) to EXCLUDE()": ("include", "a", "exclude", "", {TO_EXCLUDE: ""}),
    "INCLUDE(A,B) to EXCLUDE(B,C)": ("include", "ab", "exclude", "bc", {TO_EXCLUDE: "bc"}),
    "EXCLUDE(A) to the same": ("exclude", "a", "exclude", "a", {}),
    "INCLUDE(A) to the same": ("include", "a", "include", "a", {}),
}


@pytest.mark.parametrize(("mode", "sources", "new_mode", "new_sources", "records"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_whole_filter_is_reported_as_the_difference(
    rig, feed, nothing_more, protocol, group, mode, sources, new_mode, new_sources, records
):
    def change(mode: str, sources: str) -> None:
        wanted = sorted(named(protocol, sources))
        feed.verb("set_source_filter", group=group, mode=mode, sources=wanted, interface="feed0")

    with Capture(rig.tx, "feed0") as before:
        change(mode, sources)
        due = {TO_INCLUDE: named(protocol, sources)} if mode == "include" else {BLOCK: named(protocol, sources)}
        nothing_more(group, due if sources else {}, before)
    with Capture(rig.tx, "feed0") as after:
        change(new_mode, new_sources)
        nothing_more(group, {kind: named(protocol, letters) for kind, letters in records.items()}, after)
