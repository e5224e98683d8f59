"""What a join and a leave put on the wire: the membership reports by which routers and switches know what to send.

Owns what is captured at tx while rx joins. Linux repeats each report and may put several in one, so the sources of a
kind are added up, and nothing is counted; that something is not reported is seen by the report of a later join.
RFC 3376, 5.1, says what is due, and RFC 3810, 6.1, the same for IPv6: no membership is mode INCLUDE with no source.
"""

from __future__ import annotations

import sys

import pytest
from capture import Capture
from protocols import ALLOW, BLOCK, IGMP, MLD, TO_EXCLUDE, TO_INCLUDE
from wire import Record, general_query

pytest_plugins = ["rig_fixtures", "report_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_000


# Any source --------------------------------------------------------------------------------------------------------


def test_joining_and_leaving_from_any_source(rx, wire, nothing_more, protocol, group):
    feed = rx.plain(protocol.any, PORT)
    feed.join(group, interface="feed0")
    assert wire.until(len, group=group) == {protocol.record(TO_EXCLUDE, group)}
    feed.leave(group, interface="feed0")
    wire.expect(group, {TO_EXCLUDE: set(), TO_INCLUDE: set()})
    nothing_more(group, {TO_EXCLUDE: set(), TO_INCLUDE: set()})


def test_opening_and_closing_a_receiver_of_any_source(rx, wire, protocol):
    groups = [protocol.new_group() for _ in range(3)]
    feed = rx.receiver(groups, PORT, interface="feed0")
    for group in groups:
        wire.expect(group, {TO_EXCLUDE: set()})
    feed.close()
    for group in groups:
        wire.expect(group, {TO_EXCLUDE: set(), TO_INCLUDE: set()})


def test_a_second_socket_changes_nothing_until_both_have_left(rx, wire, nothing_more, protocol, group):
    """A host reports what all of its sockets want (RFC 3376, 3.2; RFC 3810, 4.2)."""
    first, second = (rx.receiver(group, PORT, interface="feed0") for _ in range(2))
    wire.expect(group, {TO_EXCLUDE: set()})
    first.close()
    nothing_more(group, {TO_EXCLUDE: set()})
    second.leave(group, interface="feed0")
    wire.expect(group, {TO_EXCLUDE: set(), TO_INCLUDE: set()})


def test_a_group_is_reported_on_the_interface_it_was_joined_on(rig, rx, nothing_more, group):
    """Both links are seen at tx, where the join on feed1 has to show there and not on feed0."""
    with Capture(rig.tx, "feed1") as other:
        rx.receiver(group, PORT, interface="feed1")
        other.expect(group, {TO_EXCLUDE: set()})
        nothing_more(group, {})


# Named sources -----------------------------------------------------------------------------------------------------


def test_each_source_joined_is_allowed_and_each_left_is_blocked(rx, wire, nothing_more, protocol, group):
    """The mode is INCLUDE all the time, also before the first source is joined and after the last has been left.

    INCLUDE() to INCLUDE(A): ALLOW(A); INCLUDE(A,B) to INCLUDE(B): BLOCK(A) (RFC 3376, 5.1; RFC 3810, 6.1).
    """
    first, second, _ = protocol.sources
    feed = rx.plain(protocol.any, PORT)
    feed.join(group, interface="feed0", source=first)
    assert wire.until(len, group=group) == {protocol.record(ALLOW, group, first)}
    feed.join(group, interface="feed0", source=second)
    wire.expect(group, {ALLOW: {first, second}})
    feed.leave(group, interface="feed0", source=first)
    wire.expect(group, {ALLOW: {first, second}, BLOCK: {first}})
    feed.leave(group, interface="feed0", source=second)
    wire.expect(group, {ALLOW: {first, second}, BLOCK: {first, second}})
    nothing_more(group, {ALLOW: {first, second}, BLOCK: {first, second}})


def test_opening_and_closing_a_receiver_of_two_sources(rx, wire, protocol):
    listed = set(protocol.sources[:2])
    groups = [protocol.new_group() for _ in range(2)]
    feed = rx.receiver(groups, PORT, interface="feed0", source=sorted(listed))
    for group in groups:
        wire.expect(group, {ALLOW: listed})
    feed.close()
    for group in groups:
        wire.expect(group, {ALLOW: listed, BLOCK: listed})


def test_sources_that_sockets_share_stay_until_the_last_has_left(rx, wire, nothing_more, protocol, group):
    shared, own, _ = protocol.sources
    first = rx.receiver(group, PORT, interface="feed0", source=shared)
    second = rx.receiver(group, PORT, interface="feed0", source=[shared, own])
    wire.expect(group, {ALLOW: {shared, own}})
    first.close()
    nothing_more(group, {ALLOW: {shared, own}})
    second.close()
    wire.expect(group, {ALLOW: {shared, own}, BLOCK: {shared, own}})


# What a router asks ------------------------------------------------------------------------------------------------


def test_a_query_is_answered_with_what_is_joined(rx, wire, protocol):
    """The current state is told by MODE_IS_EXCLUDE and MODE_IS_INCLUDE (RFC 3376, 5.2; RFC 3810, 6.2)."""
    any_source, specific, left = (protocol.new_group() for _ in range(3))
    listed = protocol.sources[:2]
    feed = rx.receiver([any_source, left], PORT, interface="feed0")
    rx.receiver(specific, PORT, interface="feed0", source=list(listed))
    feed.leave(left, interface="feed0")
    wire.put(general_query(protocol.router))
    answers = {
        protocol.record("MODE_IS_EXCLUDE", any_source),
        protocol.record("MODE_IS_INCLUDE", specific, *listed),
    }
    came = wire.until(lambda seen: answers <= seen)
    assert {
        each
        for each in came
        if each.group in (any_source, specific, left) and each.type in ("MODE_IS_EXCLUDE", "MODE_IS_INCLUDE")
    } == answers


# Older versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "version"),
    [(protocol, version) for protocol in (IGMP, MLD) for version in protocol.older],
    ids=[protocol.older[version][0] for protocol in (IGMP, MLD) for version in protocol.older],
    indirect=["protocol"],
)
@pytest.mark.parametrize("specific", [False, True], ids=["any source", "named source"])
def test_an_older_version_reports_the_whole_group(sysctl, rx, wire, protocol, version, group, specific):
    """A source can't be named there: the network then sends from all, and the host picks (RFC 3376, 7.2.1).

    Just this version's messages are judged: a timer of Linux that was set for an earlier change, before it was held to
    this version, still sends what is due by then as the newest version has it.
    """
    name, join, leave = protocol.older[version]
    sysctl(protocol.force_version, version)
    feed = rx.receiver(group, PORT, interface="feed0", source=protocol.sources[0] if specific else None)
    report, done = Record(name, join, group), Record(name, leave, group)
    assert done not in wire.until(lambda seen: report in seen, group=group)
    feed.close()
    if leave:
        wire.until(lambda seen: done in seen, group=group)
        return
    # Version 1 of IGMP has no message for it.
    marker = protocol.new_group()
    rx.receiver(marker, PORT, interface="feed0")
    wire.until(lambda seen: Record(name, join, marker) in seen)
    assert {each for each in wire.records if each.group == group and each.version != protocol.version} == {report}
