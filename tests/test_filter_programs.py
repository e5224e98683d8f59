"""`Filter` as a value, what it refuses, and that what it compiles to is what it says: against a plain model of it."""

from __future__ import annotations

import array
import copy
import ipaddress
import itertools
import pickle
import socket
import sys
from collections import OrderedDict, deque
from types import MappingProxyType

import numpy as np
import pytest
from bpf import WHOLE, Datagram, accepts, check, run, wanted
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import HUGE, refused

IPV4, IPV6 = socket.AF_INET, socket.AF_INET6
OPERATION = "open_receiver"


@pytest.fixture(scope="session")
def filters(multicast):
    return multicast._filter


# A value -----------------------------------------------------------------------------------------------------------


def test_it_prints_as_the_call_that_makes_it(filters):
    made = filters.Filter(source="192.0.2.1", source_port=7, payload={2: b"cd", 0: b"ab", 9: b"\0"})
    assert repr(made) == "Filter(source=('192.0.2.1',), source_port=(7,), payload={0: b'abcd', 9: b'\\x00'})"
    assert eval(repr(made), {"Filter": filters.Filter}) == made
    assert repr(filters.Filter(payload=b"A")) == "Filter(source=None, source_port=None, payload={0: b'A'})"


SAME = {
    "order of sources": ({"source": ["192.0.2.1", "192.0.2.2"]}, {"source": ["192.0.2.2", "192.0.2.1"]}),
    "twice the same": ({"source": "192.0.2.1", "source_port": 1}, {"source": ["192.0.2.1"] * 2, "source_port": [1, 1]}),
    "text or object": ({"source": "2001:db8::1"}, {"source": ipaddress.ip_address("2001:db8::1")}),
    "ways to write it": ({"source": "2001:db8::1"}, {"source": "2001:0DB8:0:0::0001"}),
    "kinds of collection": ({"source_port": range(3)}, {"source_port": {0, 1, 2}}),
    "array": ({"source_port": range(3)}, {"source_port": array.array("H", [0, 1, 2])}),
    "numpy's numbers": ({"source_port": range(3)}, {"source_port": np.arange(3)}),
    "numpy's number": ({"source_port": 7}, {"source_port": np.array(7)}),
    "a network": ({"source": "192.0.2.1"}, {"source": ipaddress.ip_network("192.0.2.1/32")}),
    "payload or mapping": ({"payload": b"abc"}, {"payload": {0: b"abc"}}),
    "kinds of bytes": ({"payload": b"abc"}, {"payload": memoryview(bytearray(b"abc"))}),
    "kinds of mapping": ({"payload": {1: b"b"}}, {"payload": MappingProxyType(OrderedDict({1: b"b"}))}),
    "pieces that touch": ({"payload": b"abcdef"}, {"payload": {3: b"def", 0: b"abc"}}),
    "pieces that overlap": ({"payload": b"abcdef"}, {"payload": {2: b"cdef", 0: b"abcd"}}),
    "an empty piece": ({"payload": b"abc"}, {"payload": {0: b"abc", 9: b""}}),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_conditions_are_equal_and_the_same_program(filters, how):
    first, second = (filters.Filter(**conditions) for conditions in SAME[how])
    assert first == second
    assert hash(first) == hash(second)
    assert repr(first) == repr(second)
    family = IPV6 if ":" in repr(first.source) else IPV4
    assert filters.program(first, family, OPERATION) == filters.program(second, family, OPERATION)


def test_other_conditions_are_not_equal(filters):
    others = [
        {"source": "192.0.2.1"},
        {"source": "2001:db8::1"},
        {"source_port": 1},
        {"payload": b"A"},
        {"payload": {1: b"A"}},
        {"source": "192.0.2.1", "source_port": 1},
    ]
    made = [filters.Filter(**conditions) for conditions in others]
    assert len(set(made)) == len(made)
    assert all(one != other for one, other in itertools.combinations(made, 2))
    assert made[0] != "192.0.2.1"


def test_it_is_fixed(filters):
    made = filters.Filter(source="192.0.2.1", payload=b"A")
    for name in ("source", "source_port", "payload", "_program", "other"):
        with pytest.raises(AttributeError):
            setattr(made, name, None)
        with pytest.raises(AttributeError):
            delattr(made, name)
    made.payload[0] = b"B"  # of a copy
    assert made.payload == {0: b"A"}
    assert made == filters.Filter(**made.as_dict())


def test_later_changes_of_an_argument_change_nothing(filters):
    sources, data = ["192.0.2.1"], bytearray(b"A")
    made = filters.Filter(source=sources, payload={0: data})
    sources.append("192.0.2.2")
    data[:] = b"B"  # nor is the bytearray locked
    data += b"C"
    assert made == filters.Filter(source="192.0.2.1", payload=b"A")


def test_it_can_be_copied_and_pickled(multicast, filters, monkeypatch):
    for name, module in {"": multicast, "._filter": filters, "._values": multicast._values}.items():
        monkeypatch.setitem(sys.modules, f"multicast{name}", module)  # pickle looks there
    made = filters.Filter(source=["192.0.2.1", "192.0.2.2"], source_port=9, payload={3: b"A"})
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert other == made
        assert filters.program(other, IPV4, OPERATION) == filters.program(made, IPV4, OPERATION)


# What it refuses ---------------------------------------------------------------------------------------------------


def named(rows):
    """Rows of a table, each called by the error that it expects."""
    return [pytest.param(*row, id=f"{row[0].__name__} {row[2]}"[:60]) for row in rows]


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")


REFUSED = [
    (ValueError, {}, "give a source, a source_port or a payload"),
    (ValueError, {"source": None, "source_port": None, "payload": None}, "no filter is None"),
    # Sources
    (ValueError, {"source": []}, "no source was named; None is for any"),
    (ValueError, {"source": ""}, "'' is no IPv4 or IPv6 address (as source)"),
    (ValueError, {"source": "192.0.2"}, "'192.0.2'"),
    (ValueError, {"source": "192.0.2.0/24"}, "'192.0.2.0/24'"),
    (ValueError, {"source": "192.0.2.1\0"}, "is no IPv4 or IPv6 address"),
    (ValueError, {"source": ["192.0.2.1", "example.org"]}, "'example.org'"),
    (TypeError, {"source": 3221225985}, "3221225985"),
    (TypeError, {"source": HUGE}, "that can't be printed"),
    (TypeError, {"source": b"192.0.2.1"}, "b'192.0.2.1'"),
    (TypeError, {"source": [b"\xc0\0\2\1"]}, "source is an IPv4 or IPv6 address as text or ipaddress object"),
    (TypeError, {"source": [None]}, "None"),
    (TypeError, {"source": [["192.0.2.1"]]}, "['192.0.2.1']"),
    (TypeError, {"source": Hostile()}, "a Hostile that can't be printed"),
    (TypeError, {"source": list}, "<class 'list'>"),
    (ValueError, {"source": ["192.0.2.1", "2001:db8::1"]}, "of different families"),
    (ValueError, {"source": "239.255.0.1"}, "239.255.0.1 is no host's address"),
    (ValueError, {"source": "ff02::1"}, "ff02::1 is no host's address"),
    (ValueError, {"source": "0.0.0.0"}, "0.0.0.0 is no host's address"),
    (ValueError, {"source": "::"}, ":: is no host's address"),
    (ValueError, {"source": "255.255.255.255"}, "255.255.255.255 is no host's address"),
    (ValueError, {"source": "fe80::1%eth0"}, "'fe80::1%eth0': leave the zone out"),
    (ValueError, {"source": ipaddress.ip_address("fe80::1%9")}, "leave the zone out"),
    (ValueError, {"source": "::ffff:192.0.2.1"}, "::ffff:192.0.2.1 is an IPv4 address"),
    (ValueError, {"source": itertools.repeat("192.0.2.1")}, "more than 4096 times source"),
    (ValueError, {"source": ipaddress.ip_network("2001:db8::/32")}, "more than 4096 times source"),
    # Ports
    (ValueError, {"source_port": []}, "no source_port was named; None is for any"),
    (ValueError, {"source_port": -1}, "source_port is an integer from 0 to 65535, not -1"),
    (ValueError, {"source_port": 65_536}, "not 65536"),
    (ValueError, {"source_port": HUGE}, "that can't be printed"),
    (ValueError, {"source_port": [1, 65_536]}, "not 65536"),
    (ValueError, {"source_port": itertools.repeat(1)}, "more than 4096 times source_port"),
    (ValueError, {"source_port": range(65_536)}, "more than 4096 times source_port"),
    (TypeError, {"source_port": "80"}, "source_port is an integer from 0 to 65535, not '80'"),
    (TypeError, {"source_port": b"80"}, "not b'80'"),
    (TypeError, {"source_port": ["80"]}, "not '80'"),
    (TypeError, {"source_port": 80.0}, "not 80.0"),
    (TypeError, {"source_port": True}, "not True"),
    (TypeError, {"source_port": [[80]]}, "not [80]"),
    (TypeError, {"source_port": Hostile()}, "a Hostile that can't be printed"),
    # Payloads
    (ValueError, {"payload": b""}, "payload is empty; None is for any"),
    (ValueError, {"payload": {}}, "payload is empty"),
    (ValueError, {"payload": {4: b""}}, "payload is empty"),
    (ValueError, {"payload": {-1: b"A"}}, "an offset of the payload is an integer from 0 to 65526, not -1"),
    (ValueError, {"payload": {65_527: b"A"}}, "not 65527"),
    (ValueError, {"payload": {65_526: b"AB"}}, "payload ends after 65527 bytes, which no datagram has"),
    (ValueError, {"payload": bytes(1 << 20)}, "payload ends after 65527 bytes"),
    (ValueError, {"payload": {0: b"abc", 2: b"d"}}, "payload wants two different bytes at offset 2"),
    (TypeError, {"payload": "abc"}, "payload is bytes-like, or a mapping of offsets to such, not 'abc'"),
    (TypeError, {"payload": 5}, "not 5"),
    (TypeError, {"payload": [b"abc"]}, "not [b'abc']"),
    (TypeError, {"payload": {0: "abc"}}, "not 'abc'"),
    (TypeError, {"payload": {0: 65}}, "not 65"),
    (TypeError, {"payload": {0: None}}, "not None"),
    (TypeError, {"payload": {"0": b"A"}}, "an offset of the payload is an integer from 0 to 65526, not '0'"),
    (TypeError, {"payload": {0.0: b"A"}}, "not 0.0"),
    (TypeError, {"payload": {True: b"A"}}, "not True"),
    (TypeError, {"payload": dict}, "not <class 'dict'>"),
    (TypeError, {"payload": Hostile()}, "a Hostile that can't be printed"),
]


@pytest.mark.parametrize(("kind", "conditions", "says"), named(REFUSED))
def test_conditions_that_can_not_be_are_refused_by_name(filters, kind, conditions, says):
    error = refused(kind, lambda: filters.Filter(**conditions), says)
    assert str(error).startswith("Filter: ")


def test_a_released_memoryview_is_no_payload(filters):
    view = memoryview(b"A")
    view.release()
    refused(TypeError, lambda: filters.Filter(payload=view), "Filter: payload is bytes-like")


def test_conditions_go_by_their_names_alone(filters):
    with pytest.raises(TypeError):
        filters.Filter("192.0.2.1")
    with pytest.raises(TypeError):
        filters.Filter(destination="192.0.2.1")


@pytest.mark.parametrize(
    ("source", "family", "has"), [("192.0.2.1", IPV6, "AF_INET6"), ("2001:db8::1", IPV4, "AF_INET")]
)
def test_a_source_of_the_other_family_is_refused(filters, source, family, has):
    made = filters.Filter(source=source)
    words = (f"{OPERATION}: the filter's source {source} is ", f"the socket is {has}")
    refused(ValueError, lambda: filters.program(made, family, OPERATION), *words)


def test_a_socket_without_udp_is_refused(filters):
    made = filters.Filter(payload=b"A")
    refused(ValueError, lambda: filters.program(made, socket.AF_UNIX, OPERATION), OPERATION, "AF_UNIX")


# Programs of one's own ---------------------------------------------------------------------------------------------

RETURN = (0x06, 0, 0, 0)


@pytest.mark.parametrize("rows", [[RETURN], (list(RETURN),), deque([RETURN]), np.array([RETURN])], ids=type)
def test_a_program_is_a_sequence_of_four_numbers_each(filters, rows):
    found = filters.program(rows, IPV4, OPERATION)
    assert found == (RETURN,)
    assert {type(field) for field in found[0]} == {int}


def test_a_program_is_taken_from_its_least_to_its_most(filters):
    widest = (0xFFFF, 0xFF, 0xFF, 0xFFFF_FFFF)
    assert filters.program([(0, 0, 0, 0), widest], socket.AF_UNIX, OPERATION) == ((0, 0, 0, 0), widest)
    assert len(filters.program([RETURN] * 4096, IPV6, OPERATION)) == 4096


NO_PROGRAM = [
    *(
        (TypeError, value, "filter is a multicast.Filter or a sequence of BPF instructions (code, jt, jf, k), not ")
        for value in (None, 6, "6 0 0 0", b"\6", {0: RETURN}, {RETURN}, iter([RETURN]), list, Hostile(), object())
    ),
    (ValueError, [], "the filter has 1 to 4096 instructions, not none"),
    (ValueError, [RETURN] * 4097, "the filter has 1 to 4096 instructions, not 4097"),
    (ValueError, [(6, 0, 0)], "the filter's instruction 0 is (code, jt, jf, k), not (6, 0, 0)"),
    (ValueError, [RETURN, (6, 0, 0, 0, 0)], "the filter's instruction 1 is (code, jt, jf, k)"),
    (ValueError, [itertools.count()], "the filter's instruction 0 is (code, jt, jf, k), not count("),
    (TypeError, [RETURN, 6], "the filter's instruction 1 is (code, jt, jf, k), not 6"),
    (TypeError, [None], "not None"),
    (TypeError, ["6000"], "the filter's instruction 0: code is an integer from 0 to 65535, not '6'"),
    (TypeError, [(6, 0, 0, 0.0)], "the filter's instruction 0: k is an integer from 0 to 4294967295, not 0.0"),
    (TypeError, [(6, True, 0, 0)], "the filter's instruction 0: jt is an integer from 0 to 255, not True"),
    (ValueError, [(65_536, 0, 0, 0)], "code is an integer from 0 to 65535, not 65536"),
    (ValueError, [RETURN, (6, 256, 0, 0)], "the filter's instruction 1: jt is an integer from 0 to 255, not 256"),
    (ValueError, [(6, 0, 256, 0)], "jf is an integer from 0 to 255, not 256"),
    (ValueError, [(6, 0, 0, -1)], "k is an integer from 0 to 4294967295, not -1"),
    (ValueError, [(6, 0, 0, HUGE)], "that can't be printed"),
]


@pytest.mark.parametrize(("kind", "value", "says"), named(NO_PROGRAM))
def test_what_is_no_program_is_refused_by_name(filters, kind, value, says):
    error = refused(kind, lambda: filters.program(value, IPV4, OPERATION), says)
    assert str(error).startswith(f"{OPERATION}: ")


# How long a program gets -------------------------------------------------------------------------------------------


def test_three_thousand_sources_fit_and_are_found_in_a_dozen_comparisons(filters):
    first = int(ipaddress.ip_address("198.18.0.1"))
    listed = [str(ipaddress.ip_address(first + 7 * n)) for n in range(3000)]
    program = filters.program(filters.Filter(source=listed), IPV4, OPERATION)
    check(program)
    for n in range(-7, 7 * 3001):
        datagram = Datagram(str(ipaddress.ip_address(first + n)), 1, b"")
        kept, steps = run(program, datagram)
        assert kept == (WHOLE if n % 7 == 0 and 0 <= n < 21_000 else 0)
        assert steps < 25  # half the way or all of it: 10 times halved, at most 4 in a row, and the jumps that bridge


def ipv6_sources(count: int, *, apart: int) -> list[str]:
    first = int(ipaddress.ip_address("2001:db8::1"))
    return [str(ipaddress.ip_address(first + n * apart)) for n in range(count)]


def test_as_many_sources_over_ipv6_fit_as_is_said(filters):
    for sources in (
        ipv6_sources(3000, apart=1),
        ipv6_sources(500, apart=1 << 32 | 5),
        ipv6_sources(500, apart=1 << 85),
    ):
        program = filters.program(filters.Filter(source=sources), IPV6, OPERATION)
        check(program)
        assert all(accepts(program, Datagram(each, 1, b"")) for each in sources)
        assert not accepts(program, Datagram("2001:db8::", 1, b""))


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        (
            {"source": [str(ipaddress.ip_address(0x0A000000 + n)) for n in range(1, 4000)]},
            "3999 sources, 0 ports and 0",
        ),
        ({"source": ipv6_sources(1000, apart=1 << 85)}, "1000 sources"),
        ({"source_port": range(4000)}, "4000 ports"),
        ({"payload": bytes(8192)}, "8192 bytes of payload"),
        ({"payload": {2 * n: b"A" for n in range(2500)}, "source_port": 1}, "1 ports and 2500 bytes"),
    ],
    ids=["IPv4", "IPv6", "ports", "payload", "pieces"],
)
def test_what_takes_too_many_instructions_is_refused_with_the_limit(filters, conditions, says):
    words = ("Filter: that takes ", "instructions of BPF, and the kernel 4096 at most; there are ", says)
    refused(ValueError, lambda: filters.Filter(**conditions), *words)


def test_a_program_of_any_length_is_well_formed(filters):
    """Jumps reach 255 instructions: each length puts the bridges elsewhere."""
    for count in range(1, 700):
        made = filters.Filter(source_port=range(1, 2 * count, 2), payload=b"A")
        program = filters.program(made, IPV4, OPERATION)
        check(program)
        ends = [port for port in (1, 2 * count - 1) if accepts(program, Datagram("192.0.2.1", port, b"A"))]
        assert ends == [1, 2 * count - 1]
        assert not accepts(program, Datagram("192.0.2.1", 2 * count, b"A"))


# What it compiles to -----------------------------------------------------------------------------------------------

# Few words, so that addresses share some, and values about the ends of ranges and where a sign would change.
WORDS = st.sampled_from([1, 2, 3, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFE]) | st.integers(1, 2**32 - 1)
ADDRESSES4 = st.builds(
    lambda high, low: str(ipaddress.IPv4Address(high << 24 | low)),
    st.sampled_from([10, 127, 128, 223]),
    st.integers(0, 600),
)
ADDRESSES6 = st.builds(
    lambda first, *rest: str(ipaddress.IPv6Address(b"".join(word.to_bytes(4, "big") for word in (first, *rest)))),
    st.sampled_from([1, 0x2001_0DB8, 0x2001_0DB9, 0x7FFF_FFFF, 0x8000_0000, 0xFE80_0000]),
    *[WORDS] * 3,
)
PORTS = st.sampled_from([0, 1, 255, 256, 32_767, 32_768, 65_535]) | st.integers(0, 65_535)
OCTETS = st.binary(max_size=12).map(lambda data: bytes(octet & 1 for octet in data))


@st.composite
def cases(draw):
    """A family, conditions, and datagrams of which some meet them, some nearly."""
    family = draw(st.sampled_from([IPV4, IPV6]))
    addresses = ADDRESSES4 if family == IPV4 else ADDRESSES6
    some_ports = st.lists(PORTS, min_size=1, max_size=12)
    if draw(st.integers(0, 9)) == 0:  # long enough for jumps that do not reach
        some_ports = st.integers(200, 900).map(lambda count: list(range(1, 3 * count, 3)))
    content = draw(OCTETS) + draw(OCTETS)
    pieces = st.dictionaries(st.integers(0, 20), st.integers(1, 9), min_size=1, max_size=3)
    conditions = {
        "source": draw(st.none() | st.lists(addresses, min_size=1, max_size=40)),
        "source_port": draw(st.none() | some_ports),
        # Cut out of one and the same payload, so that no two of them want different bytes.
        "payload": draw(
            st.none()
            | pieces.map(
                lambda where: {at: content[at : at + size] for at, size in where.items() if content[at:]} or None
            )
        ),
    }
    if not any(conditions.values()):
        conditions["source_port"] = draw(some_ports)
    from_where = addresses if conditions["source"] is None else addresses | st.sampled_from(conditions["source"])
    from_port = PORTS if conditions["source_port"] is None else PORTS | st.sampled_from(conditions["source_port"])
    changed = st.builds(lambda at, by: content[:at] + by + content[at + len(by) :], st.integers(0, 24), OCTETS)
    cut = st.integers(0, len(content)).map(lambda length: content[:length])
    headers = st.sampled_from([b"", b"\1" * 4, b"\1" * 40] if family == IPV4 else [b"", bytes(8), bytes(16)])
    datagrams = st.builds(Datagram, from_where, from_port, st.just(content) | changed | cut, headers)
    return family, conditions, draw(st.lists(datagrams, min_size=1, max_size=30))


@settings(max_examples=400, deadline=None)
@given(case=cases())
def test_a_program_accepts_exactly_what_its_filter_says(filters, case):
    family, conditions, datagrams = case
    program = filters.program(filters.Filter(**conditions), family, OPERATION)
    check(program)
    for datagram in datagrams:
        assert accepts(program, datagram) == wanted(conditions, datagram), datagram


@settings(max_examples=40, deadline=None)
@given(data=st.data(), family=st.sampled_from([IPV4, IPV6]))
def test_every_source_of_many_is_found_and_no_neighbour_of_one(filters, data, family):
    pool = ADDRESSES4 if family == IPV4 else ADDRESSES6
    start = int(ipaddress.ip_address("198.18.0.1" if family == IPV4 else "2001:db8::ffff:fff0"))
    count, apart = data.draw(st.integers(1, 1000)), data.draw(st.sampled_from([1, 2, 255, 65_537]))
    make = ipaddress.IPv4Address if family == IPV4 else ipaddress.IPv6Address
    listed = {str(make(start + n * apart)) for n in range(count)} | set(data.draw(st.lists(pool, max_size=50)))
    program = filters.program(filters.Filter(source=listed), family, OPERATION)
    check(program)
    numbers = {int(ipaddress.ip_address(each)) for each in listed}
    for number in {near for each in numbers for near in (each - 1, each, each + 1)}:
        assert accepts(program, Datagram(str(make(number)), 1, b"")) == (number in numbers)


class Forged(Datagram):
    @property
    def packet(self) -> bytes:
        return super().packet[:8] + b"\x20\x11" + super().packet[10:]  # TTL and protocol


def test_an_ipv4_datagram_is_not_taken_for_an_ipv6_one(filters):
    """On a socket of both families: where IPv6 has its source, IPv4 has bytes that a sender can choose."""
    forged = Forged("192.0.2.7", 0x1234, bytes(range(20)))
    looks_like = str(ipaddress.IPv6Address(forged.packet[8:24]))
    program = filters.program(filters.Filter(source=looks_like), IPV6, OPERATION)
    assert accepts(program, Datagram(looks_like, 1, b""))
    assert not accepts(program, forged)
