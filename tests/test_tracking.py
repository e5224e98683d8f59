"""What is missing of a numbered feed: against a set of all the numbers that came."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast import _tracking
from multicast._moldudp64 import HEADER
from multicast._sequence import CME, MOLDUDP64, RTP, parse_sequence
from multicast._tracking import MISORDERED, Stream, Tracker


def taken(layout, numbers, origins=None):
    """A tracker that was given datagrams stamped with these numbers, in one block."""
    size = layout.smallest + 3
    block = bytearray(size * len(numbers))
    for at, number in enumerate(numbers):
        layout.stamp(memoryview(block)[at * size : (at + 1) * size], number)
    tracker = Tracker(layout)
    tracker.take(block, range(0, len(block), size), [size] * len(numbers), origins or [None] * len(numbers))
    return tracker


ranges = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), min_size=1, max_size=80)


@given(first=st.integers(0, 2**16 - 1), ranges=ranges, width=st.sampled_from([2, 4, 8]))
def test_the_account_is_that_of_a_set_of_all_that_came(first, ranges, width):
    """Numbers in any order, overlapping, also across the place where they begin again at 0."""
    stream, seen, late, duplicates, gaps = None, set(), 0, 0, 0
    for offset, count in ranges:
        number = first + offset
        if stream is None:
            stream, lowest, highest = Stream(number + count), number, number + count
            seen.update(range(number, number + count))
            continue
        gaps += number > highest
        for each in range(number, number + count):
            if each in seen or each < lowest:
                duplicates += 1
            else:
                late += each < highest
                seen.add(each)
        highest = max(highest, number + count)
        stream.take(number % (1 << 8 * width), count, width)
        assert stream.missing == highest - lowest - len(seen)
    assert (stream.gaps, stream.late, stream.duplicates, stream.restarts) == (gaps, late, duplicates, 0)


@pytest.mark.parametrize("layout", [MOLDUDP64, RTP, CME, parse_sequence("offset=3,width=8,order=little")])
def test_each_layout_is_followed(layout):
    tracker = taken(layout, [7, 8, 9, 12, 10, 12, 13])
    assert tracker.total() == {"gaps": 1, "missing": 1, "late": 1, "duplicates": 1, "restarts": 0}
    assert len(tracker.streams) == 1


def test_numbers_of_16_bits_begin_again_without_a_gap():
    assert not any(taken(RTP, range(65_000, 66_500)).total().values())


def test_of_16_bits_half_of_all_numbers_can_be_lost_at_once():
    assert taken(RTP, [10, 11, 11 + 32_768, 11 + 32_769]).total()["missing"] == 32_767


def test_a_sender_that_begins_again_is_no_loss():
    found = taken(MOLDUDP64, [*range(90_000, 90_010), *range(1, 11)]).total()
    assert found == {"gaps": 0, "missing": 0, "late": 0, "duplicates": 0, "restarts": 1}


def test_one_that_is_far_behind_alone_is_a_duplicate():
    found = taken(MOLDUDP64, [90_000, 90_001, 90_001 - MISORDERED - 5, 90_002]).total()
    assert found == {"gaps": 0, "missing": 0, "late": 0, "duplicates": 1, "restarts": 0}


def test_a_heartbeat_tells_of_what_was_lost_and_is_no_message():
    tracker = Tracker(MOLDUDP64)
    for number, count in [(1, 2), (3, 0), (6, 0), (6, 0), (6, 0xFFFF)]:
        tracker.take(HEADER.pack(b"SESSION000", number, count), [0], [HEADER.size], [None])
    assert tracker.total() == {"gaps": 1, "missing": 3, "late": 0, "duplicates": 0, "restarts": 0}


def test_streams_are_told_apart_by_what_they_came_from_and_what_they_are():
    tracker = taken(CME, [1, 500, 2, 501], origins=["a", "b", "a", "b"])
    assert not any(tracker.total().values())
    for session in (b"SESSION001", b"SESSION002"):
        other = Tracker(MOLDUDP64)
        other.take(HEADER.pack(session, 5, 1), [0], [20], [None])
        assert list(other.streams) == [(None, session)]


def test_what_is_too_short_has_no_number():
    tracker = Tracker(RTP)
    tracker.take(bytes(11), [0], [11], [None])
    assert (tracker.short, tracker.streams) == (1, {})


def test_more_streams_than_can_be_kept_are_counted(monkeypatch):
    monkeypatch.setattr(_tracking, "MOST_STREAMS", 2)
    tracker = taken(CME, [1, 1, 1, 2], origins=["a", "b", "c", "a"])
    assert (len(tracker.streams), tracker.untracked) == (2, 1)


def test_more_holes_than_can_be_kept_stay_missing(monkeypatch):
    monkeypatch.setattr(_tracking, "MOST_HOLES", 2)
    found = taken(CME, [1, 3, 5, 7, 2, 6]).total()
    assert found == {"gaps": 3, "missing": 2, "late": 1, "duplicates": 1, "restarts": 0}


def test_holes_are_filled_piece_by_piece():
    stream, numbers = Stream(1), list(range(2, 1000))
    stream.take(1000, 1, 8)
    random.Random(1).shuffle(numbers)
    for number in numbers:
        stream.take(number, 1, 8)
    assert (stream.missing, stream.late) == (1, 998)
