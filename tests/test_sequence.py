"""Layouts of sequence numbers: what is written is where the layout says, and other words are refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast import _sequence
from multicast._moldudp64 import BLOCK_LENGTH, HEADER
from multicast._sequence import parse_sequence

LAYOUTS = st.one_of(
    st.sampled_from(["moldudp64", "rtp", "cme"]),
    st.builds(
        "offset={},width={},order={}".format,
        st.integers(0, 300),
        st.sampled_from([1, 2, 4, 8]),
        st.sampled_from(["big", "little"]),
    ),
)


@given(LAYOUTS, st.integers(0, 2**70), st.integers(0, 100))
def test_a_number_that_is_stamped_is_read_where_the_layout_says(text, number, more):
    layout = parse_sequence(text)
    datagram = bytearray(layout.smallest + more)
    layout.stamp(datagram, number)
    at = slice(layout.offset, layout.offset + layout.width)
    assert int.from_bytes(datagram[at], layout.order) == number % layout.modulus
    assert layout.number.unpack_from(datagram, layout.offset) == (number % layout.modulus,)


@given(LAYOUTS)
def test_a_layout_is_written_as_it_is_read(text):
    assert parse_sequence(text).name == text


def test_what_is_left_out_is_a_number_of_32_bits_in_network_order():
    assert parse_sequence("offset=12") == parse_sequence("order=big,offset=12,width=4")


def test_moldudp64_is_one_message_after_its_length():
    datagram = bytearray(100)
    parse_sequence("moldudp64").stamp(datagram, 7)
    assert HEADER.unpack_from(datagram) == (_sequence.SESSION, 7, 1)
    assert BLOCK_LENGTH.unpack_from(datagram, HEADER.size) == (100 - HEADER.size - BLOCK_LENGTH.size,)


def test_rtp_is_of_version_2():
    datagram = bytearray(12)
    parse_sequence("rtp").stamp(datagram, 65_537)
    assert datagram[0] >> 6 == 2
    assert datagram[2:4] == b"\0\1"


@pytest.mark.parametrize("text", ["moldudp64", "rtp", "cme", "offset=20"])
def test_a_datagram_that_is_too_short_is_refused(text):
    layout = parse_sequence(text)
    with pytest.raises(struct.error):
        layout.stamp(bytearray(layout.offset + layout.width - 1), 1)


@pytest.mark.parametrize(
    "text",
    [
        *("", "RTP", "offset", "offset=", "offset=-1", "offset=x", "offset=٣", "offset=99999", f"offset={'9' * 5000}"),
        *("width=4", "offset=0,width=3", "offset=0,order=network", "offset=0,offset=1", "offset=0,", "rtp,offset=3"),
    ],
)
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="a layout of sequence numbers is moldudp64, rtp, cme or offset=N"):
        parse_sequence(text)
