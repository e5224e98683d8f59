"""The notation of feeds: what it says, that it can be written back, and what it refuses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast import Feed, parse_feed
from multicast.cli.doctor import facts

ADDRESSES4 = st.ip_addresses(v=4)
ADDRESSES6 = st.ip_addresses(v=6)
GROUPS = st.one_of(
    st.ip_addresses(network="224.0.0.0/4").map(lambda group: (group, False)),
    st.ip_addresses(network="ff00::/8").map(lambda group: (group, True)),
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_@", min_size=1, max_size=15).filter(
    lambda name: not name.isdecimal()
)
INTERFACES = st.one_of(st.none(), st.integers(1, 2**31 - 1).map(str), NAMES, ADDRESSES4.map(str), ADDRESSES6.map(str))


def is_host(address) -> bool:
    return not (address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255")


@st.composite
def feeds(draw):
    group, six = draw(GROUPS)
    last = 2**128 - 1 if six else int(ipaddress.ip_address("239.255.255.255"))
    return Feed(
        group=str(group),
        count=draw(st.integers(1, min(65_536, last - int(group) + 1))),
        port=draw(st.integers(1, 65_535)),
        source=draw(st.none() | (ADDRESSES6 if six else ADDRESSES4).filter(is_host).map(str)),
        interface=draw(INTERFACES),
    )


def canonical(feed: Feed) -> Feed:
    """With its addresses as the system writes them."""
    return Feed(
        **feed.as_dict()
        | {
            "group": parse_feed(f"[{feed.group}]:1" if ":" in feed.group else f"{feed.group}:1").group,
            "source": feed.source and parse_feed(str(feed)).source,
        }
    )


@given(feeds())
def test_what_is_written_is_read_back(feed):
    feed = canonical(feed)
    assert parse_feed(str(feed)) == feed
    assert str(parse_feed(str(feed))) == str(feed)


@given(feeds())
def test_the_groups_are_so_many_one_after_another(feed):
    first = int(ipaddress.ip_address(feed.group))
    found = [int(ipaddress.ip_address(each)) for each in Feed(**feed.as_dict() | {"count": min(feed.count, 50)}).groups]
    assert found == list(range(first, first + min(feed.count, 50)))


@given(st.text(max_size=60) | st.text("0123456789.:[]@%+fe ", max_size=40))
def test_any_other_text_is_refused_in_words(text):
    """Whatever is not refused is a feed that can be written and read back; whatever is, by nothing but ValueError."""
    try:
        feed = parse_feed(text)
    except ValueError as error:
        said = str(error)
    else:
        assert parse_feed(str(feed)) == feed
        return
    assert said.startswith(f"parse_feed {text!r}: ")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("239.1.1.1:5000", ("239.1.1.1", 1, 5000, None, None)),
        ("10.0.0.7@232.1.1.1:5000%eth0", ("232.1.1.1", 1, 5000, "10.0.0.7", "eth0")),
        ("239.1.1.1+4:5000%3", ("239.1.1.1", 4, 5000, None, "3")),
        ("239.1.1.1:5000%192.0.2.1", ("239.1.1.1", 1, 5000, None, "192.0.2.1")),
        ("[ff3e::1]:5000%eth0", ("ff3e::1", 1, 5000, None, "eth0")),
        ("[FF02:0::1%eth0]:5000", ("ff02::1", 1, 5000, None, "eth0")),
        ("[ff02::1%eth0]:5000%eth0", ("ff02::1", 1, 5000, None, "eth0")),
        ("[2001:db8::7]@[ff3e::1]+2:5000%2001:db8::1", ("ff3e::1", 2, 5000, "2001:db8::7", "2001:db8::1")),
        ("239.1.1.1:5000%a:b@c%d", ("239.1.1.1", 1, 5000, None, "a:b@c%d")),
        ("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1", ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1, 1, None, None)),
    ],
)
def test_what_the_notation_says(text, fields):
    assert tuple(parse_feed(text).as_dict().values()) == fields


def test_an_index_may_be_a_number_and_is_written_the_same():
    feed = parse_feed("239.1.1.1:5000%3")
    assert str(Feed(**feed.as_dict() | {"interface": 3})) == str(feed) == "239.1.1.1:5000%3"


def test_a_feed_without_a_port_has_the_one_given_or_none():
    assert parse_feed("239.1.1.1%lo", port=1234) == parse_feed("239.1.1.1:1234%lo", port=99)
    with pytest.raises(ValueError, match=r"^parse_feed '239.1.1.1%lo': it names no port$"):
        parse_feed("239.1.1.1%lo")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a feed is written [SOURCE@]GROUP[+N][:PORT][%INTERFACE], an IPv6 address in brackets"),
        ("10.0.0.1:5000", "10.0.0.1 is no multicast group"),
        ("ff3e::1", "a feed is written"),
        ("239.1.1:5000", "a feed is written"),
        ("[fe80::1%eth0]@[ff02::1]:5000%eth1", "the interface is named at the end, not by the source fe80::1%eth0"),
        ("[239.1.1.1]:5000", "an IPv6 address is in brackets, and nothing else is"),
        ("[ff3e::1:5000", "a feed is written"),
        ("2001:db8::1@[ff3e::1]:5000", "an IPv6 address is in brackets"),
        ("10.0.0.7@[ff3e::1]:5000", "of different families"),
        ("239.9.9.9@239.1.1.1:5000", "239.9.9.9 is no host's address"),
        ("@239.1.1.1:5000", "'' is no IPv4 or IPv6 address"),
        ("239.1.1.1:", "port is an integer from 1 to 65535, not ''"),
        ("239.1.1.1:0", "port is an integer from 1 to 65535, not 0"),
        ("239.1.1.1:65536", "port is an integer from 1 to 65535, not 65536"),
        ("239.1.1.1:+5", "port is an integer"),
        ("239.1.1.1:٥", "port is an integer"),
        (f"239.1.1.1:{'9' * 5000}", "port is an integer"),
        ("239.1.1.1+0:5000", "N is an integer from 1 to 65536, not 0"),
        ("239.1.1.1+65537:5000", "N is an integer from 1 to 65536"),
        ("239.255.255.255+2:5000", "2 groups from 239.255.255.255 on are more than there are"),
        ("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]+2:1", "are more than there are"),
        ("239.1.1.1:5000%", "'' is no interface's name, index or address"),
        ("239.1.1.1:5000%et h0", "'et h0' is no interface's name"),
        ("239.1.1.1:5000%0", "an interface's index is an integer from 1 to 2147483647, not 0"),
        ("[ff02::1%eth0]:5000%eth1", "the group's zone is eth0, and the interface eth1"),
        ("239.1.1.1+1:5000+1", "port is an integer"),
        ("udp://239.1.1.1:5000", "a feed is written"),
    ],
)
def test_what_is_refused_and_why(text, why):
    with pytest.raises(ValueError, match=r"^parse_feed ") as refused:
        parse_feed(text, port=1234)
    assert why in str(refused.value)


@pytest.mark.parametrize("value", [None, 5, b"239.1.1.1:5000", ipaddress.ip_address("239.1.1.1")])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(TypeError, match="a feed is written as text"):
        parse_feed(value)


def test_the_port_given_for_it_is_checked_like_every_port():
    with pytest.raises(ValueError, match="port is an integer from 1 to 65535, not 0"):
        parse_feed("239.1.1.1", port=0)
    with pytest.raises(TypeError, match="port is an integer"):
        parse_feed("239.1.1.1", port="5000")


def test_doctor_looks_for_the_interface_that_a_receiver_would_join_on():
    links = [facts.Link("31", 30, ("192.0.2.1",), True, True), facts.Link("30", 31, (), True, True)]
    wanted = {"30": "30", "31": "31", 30: "31", "192.0.2.1": "31", "lo": None, "192.0.2.2": None}
    found = {each: facts.meant(links, each) for each in wanted}
    assert {each: link and link.name for each, link in found.items()} == wanted
    assert facts.meant(links[:1], "30").name == "31"
