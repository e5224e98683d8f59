"""Control messages, and the sorting of batches by them: whatever comes is read as it is meant, or left out.

The native backend's part is reached through walker.pyx, which is built for this (walking.py); `dev.py fuzz` runs it for
longer, under sanitizers.
"""

from __future__ import annotations

import importlib
import math
import random
import socket
import struct
import sys

import pytest
import walking

pytest_plugins = ["walker_fixtures"]

SOCKET, IP, IPV6, UDP = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_UDP
RXQ_OVFL, UDP_GRO = 40, 104
TIMESTAMPNS, TIMESTAMPING = (35, 64), (37, 65)  # as older kernels have them, and with a time_t of 64 bits
IP_TOS, IP_TTL, IP_PKTINFO = 1, 2, 8
IPV6_PKTINFO, IPV6_HOPLIMIT, IPV6_TCLASS = 50, 52, 67
KNOWN = [(SOCKET, kind) for kind in (RXQ_OVFL, *TIMESTAMPNS, *TIMESTAMPING)]
KNOWN += [(IP, kind) for kind in (IP_TOS, IP_TTL, IP_PKTINFO)]
KNOWN += [(IPV6, kind) for kind in (IPV6_PKTINFO, IPV6_HOPLIMIT, IPV6_TCLASS)] + [(UDP, UDP_GRO)]
HEADER = struct.Struct("@Nii")
NOTHING = {
    "destination": bytes(16),
    "interface": 0,
    "drops": 0,
    "segment": 0,
    "timestamp": 0,
    "timestamp_kind": 0,
    "ttl": 0,
    "tos": 0,
}
WIDTHS = {16: "=qq", 8: "=ii"}  # of a struct timespec, with time_t of 64 and of 32 bits
CASES = 200_000


def packed(messages) -> bytes:
    """Messages as the kernel writes them: each with the padding that lets the next begin aligned."""
    return b"".join(
        HEADER.pack(HEADER.size + len(data), level, kind) + data.ljust(-(-len(data) // 8) * 8, b"\xa5")
        for level, kind, data in messages
    )


def number(value: int) -> bytes:
    return struct.pack("=i", value)


def time(width: int, seconds: int, rest: int = 0) -> bytes:
    return struct.pack(WIDTHS[width], seconds, rest)


@pytest.fixture(scope="session")
def told_by_twin(pytestconfig):
    """What `_ancillary_py` tells of messages, whichever backend is under test."""
    packages = next(each.PACKAGES for each in pytestconfig.pluginmanager.get_plugins() if hasattr(each, "PACKAGES"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "twin", next(iter(packages.values())))  # the package that it imports from
        twin = importlib.import_module("twin._ancillary_py")

    def tell(messages):
        found = twin.Ancillary(messages)
        told = {name: getattr(found, name) for name in NOTHING}
        return told | {"destination": found.destination.ljust(16, b"\0")}

    tell.module = twin
    return tell


@pytest.fixture
def told(multicast, request):
    """What the backend tells of these messages, beside `NOTHING`."""
    if multicast.BACKEND == "native":
        walker = request.getfixturevalue("walker")
        tell = lambda messages: walker.read(packed(messages))  # noqa: E731
    else:
        tell = request.getfixturevalue("told_by_twin")
    return lambda *messages: {name: value for name, value in tell(messages).items() if value != NOTHING[name]}


@pytest.fixture
def counts(multicast, request):
    """`widened` and `stamped` of the backend."""
    if multicast.BACKEND == "native":
        walker = request.getfixturevalue("walker")
        return walker.wide, walker.stamp
    twin = request.getfixturevalue("told_by_twin").module
    # Its integers have no end; the native ones are those of 64 bits.
    return (lambda *pair: twin.widened(*pair) % 2**64), (lambda *pair: twin.stamped(*pair) % 2**64)


# Both tell the same ------------------------------------------------------------------------------------------------


def some_number(dice: random.Random) -> int:
    return dice.choice([0, 1, 199, 255, 256, 2**31 - 1, -1, -(2**31), dice.randint(-(2**31), 2**31 - 1)])


def some_time(dice: random.Random, width: int) -> bytes:
    rest = dice.choice([0, 1, 999_999_999, 10**9, -1, some_number(dice)])
    if width == 16:
        seconds = dice.choice([0, 1_700_000_000, 8_999_999_999, 9_000_000_000, 2**63 - 1, -1, -(2**63)])
        return dice.choice([time(width, seconds, rest), bytes(width)])
    return dice.choice([time(width, some_number(dice), rest), bytes(width)])


def some_data(dice: random.Random, kind: int) -> bytes:
    """Often of a size that this kind of message can have."""
    width = dice.choice([8, 16])
    if dice.random() < 0.3:
        return dice.randbytes(dice.choice([1, 4, 8, 12, 16, 20, 24, 48, dice.randrange(64)]))
    if kind in TIMESTAMPNS:
        return some_time(dice, width)
    if kind in TIMESTAMPING:
        return b"".join(some_time(dice, width) for _ in range(3))
    if kind in (IP_PKTINFO, IPV6_PKTINFO):
        return dice.randbytes(12 if kind == IP_PKTINFO else 20)
    return dice.choice([number(some_number(dice)), dice.randbytes(1)])


def some_messages(dice: random.Random) -> list[tuple[int, int, bytes]]:
    """As the kernel would write them, but for what they say and how long they are."""
    others = [(level, kind) for level in (SOCKET, IP, IPV6, UDP, 3) for kind in (0, 1, 35, 40, 50, 104)]
    kinds = dice.choices(KNOWN * 4 + others, k=dice.randrange(8))
    return [(level, kind, some_data(dice, kind)) for level, kind in kinds]


def test_both_backends_tell_the_same_of_any_well_formed_messages(walker, told_by_twin):
    dice = random.Random(41)
    told = dict.fromkeys(NOTHING, 0)
    for _ in range(25_000):
        messages = some_messages(dice)
        found = walker.read(packed(messages))
        assert found == told_by_twin(messages), messages
        for name, value in found.items():
            told[name] += value != NOTHING[name]
    assert min(told.values()) > 1000, "each field has to be told of often"


# Each kind of message ----------------------------------------------------------------------------------------------


def test_without_messages_nothing_is_told(told):
    assert told() == {}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TIMESTAMPNS)
def test_a_time_of_either_width_and_generation_is_the_softwares(told, kind, width):
    message = (SOCKET, kind, time(width, 1_700_000_000, 999_999_999))
    assert told(message) == {"timestamp": 1_700_000_000_999_999_999, "timestamp_kind": 1}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TIMESTAMPING)
def test_of_three_times_the_third_is_the_cards_and_goes_before_the_first(told, kind, width):
    none, software, hardware = bytes(width), time(width, 5, 6), time(width, 7, 8)
    both = (SOCKET, kind, software + none + hardware)
    assert told(both) == {"timestamp": 7_000_000_008, "timestamp_kind": 2}
    assert told((SOCKET, kind, none + none + hardware)) == {"timestamp": 7_000_000_008, "timestamp_kind": 2}
    assert told((SOCKET, kind, software + none + none)) == {"timestamp": 5_000_000_006, "timestamp_kind": 1}
    assert told((SOCKET, kind, none + software + none)) == {}


@pytest.mark.parametrize("kind", TIMESTAMPNS)
def test_a_time_of_the_software_does_not_displace_the_cards(told, kind):
    software = (SOCKET, kind, time(16, 5))
    hardware = (SOCKET, TIMESTAMPING[0], time(16, 4) + bytes(16) + time(16, 7))
    by_card = {"timestamp": 7_000_000_000, "timestamp_kind": 2}
    assert told(software, hardware) == told(hardware, software) == by_card


def test_of_two_times_of_one_kind_the_later_message_counts(told):
    # What a 32-bit system with a 64-bit time_t brings: the same time in both widths.
    messages = [(SOCKET, kind, time(width, 5, width)) for kind, width in ((35, 8), (64, 16))]
    assert told(*messages) == {"timestamp": 5_000_000_016, "timestamp_kind": 1}


@pytest.mark.parametrize(
    ("seconds", "rest"), [(1, 10**9), (1, -1), (-1, 0), (9_000_000_000, 0), (2**63 - 1, 999_999_999), (-(2**63), 0)]
)
def test_what_is_no_time_is_none_and_displaces_none(told, seconds, rest):
    wrong = (SOCKET, 35, time(16, seconds, rest))
    assert told(wrong) == {}
    assert told((SOCKET, 35, time(16, 3)), wrong) == {"timestamp": 3_000_000_000, "timestamp_kind": 1}


def test_the_latest_time_that_is_one(told):
    assert told((SOCKET, 35, time(16, 8_999_999_999, 999_999_999)))["timestamp"] == 8_999_999_999_999_999_999


@pytest.mark.parametrize(("level", "kind"), [(IP, IP_TOS), (IPV6, IPV6_TCLASS)])
def test_the_tos_is_a_byte_or_an_int(told, level, kind):
    assert told((level, kind, b"\xb8")) == told((level, kind, number(0xB8))) == {"tos": 0xB8}


@pytest.mark.parametrize(("level", "kind"), [(IP, IP_TTL), (IPV6, IPV6_HOPLIMIT)])
def test_the_ttl_is_an_int_or_a_byte(told, level, kind):
    assert told((level, kind, number(255))) == told((level, kind, b"\xff")) == {"ttl": 255}


@pytest.mark.parametrize("size", [0, 2, 3, 5, 8])
def test_a_ttl_or_tos_of_a_size_that_it_can_not_have_displaces_none(told, size):
    wrong = [(IP, IP_TTL, b"\1" * size), (IPV6, IPV6_HOPLIMIT, b"\1" * size)]
    wrong += [(IP, IP_TOS, b"\1" * size), (IPV6, IPV6_TCLASS, b"\1" * size)]
    assert told(*wrong) == {}
    assert told((IP, IP_TTL, number(64)), (IP, IP_TOS, b"\x20"), *wrong) == {"ttl": 64, "tos": 0x20}


def test_the_destination_over_ipv4_is_the_one_in_the_header_not_the_local_address(told):
    data = number(3) + socket.inet_aton("192.0.2.9") + socket.inet_aton("239.1.2.3")
    expected = {"interface": 3, "destination": socket.inet_aton("239.1.2.3") + bytes(12)}
    assert told((IP, IP_PKTINFO, data)) == expected


def test_the_destination_over_ipv6_comes_before_its_interface(told):
    group = socket.inet_pton(socket.AF_INET6, "ff15::239")
    assert told((IPV6, IPV6_PKTINFO, group + number(4))) == {"interface": 4, "destination": group}


def test_a_later_destination_leaves_nothing_of_an_earlier_one(told):
    six = (IPV6, IPV6_PKTINFO, b"\xff" * 16 + number(4))
    four = (IP, IP_PKTINFO, number(3) + bytes(4) + b"\xef\1\2\3")
    assert told(six, four) == {"interface": 3, "destination": b"\xef\1\2\3" + bytes(12)}


@pytest.mark.parametrize(("size", "kind"), [(11, (IP, IP_PKTINFO)), (13, (IP, IP_PKTINFO)), (12, (IPV6, IPV6_PKTINFO))])
def test_a_destination_of_a_size_that_it_can_not_have_is_left_out(told, size, kind):
    assert told((*kind, b"\1" * size)) == {}


def test_the_length_of_a_trains_datagrams_is_an_int(told):
    assert told((UDP, UDP_GRO, number(1472))) == {"segment": 1472}
    assert told((UDP, UDP_GRO, struct.pack("=H", 1472))) == {}


@pytest.mark.parametrize("value", [0, -1, -(2**31)])
def test_a_train_of_datagrams_of_no_length_is_none(told, value):
    assert told((UDP, UDP_GRO, number(value))) == {}


def test_drops_are_counted_in_32_bits_without_a_sign(told):
    assert told((SOCKET, RXQ_OVFL, b"\xff" * 4)) == {"drops": 2**32 - 1}
    assert told((SOCKET, RXQ_OVFL, b"\xff" * 8)) == {}


def test_a_number_at_another_level_is_another_message(told):
    messages = [(level, kind, b"\1\2\3\4") for level in (SOCKET, IP, IPV6, UDP) for _, kind in KNOWN]
    assert told(*(message for message in messages if message[:2] not in KNOWN)) == {}


# What no kernel should write ---------------------------------------------------------------------------------------

ONE_OF_EACH = [
    (SOCKET, 35, time(16, 5, 6)),
    (SOCKET, RXQ_OVFL, number(7)),
    (UDP, UDP_GRO, number(100)),
    (IP, IP_PKTINFO, number(3) + bytes(4) + b"\xef\1\2\3"),
    (IP, IP_TTL, number(64)),
    (IP, IP_TOS, b"\x20"),
]


def test_messages_cut_anywhere_tell_what_is_whole(walker, told_by_twin):
    whole = packed(ONE_OF_EACH)
    ends, at = [], 0
    for level, kind, data in ONE_OF_EACH:
        ends.append(at + HEADER.size + len(data))
        at += len(packed([(level, kind, data)]))
    for cut in range(len(whole) + 1):
        there = [message for message, end in zip(ONE_OF_EACH, ends, strict=True) if end <= cut]
        assert walker.read(whole[:cut]) == told_by_twin(there), cut


@pytest.mark.parametrize("length", [0, 1, 15, 57, 2**31, 2**32 + 20, 2**63, 2**64 - 16, 2**64 - 8, 2**64 - 1])
def test_a_length_that_can_not_be_ends_the_walk(walker, length):
    first, rest = packed(ONE_OF_EACH[1:2]), packed(ONE_OF_EACH[4:])
    wrong = struct.pack("@Nii", length, IP, IP_TOS) + b"\x20" + bytes(7)
    assert walker.read(first + wrong + rest[:24]) == NOTHING | {"drops": 7}


def test_a_length_of_a_bare_header_is_an_empty_message(walker):
    assert walker.read(struct.pack("@Nii", 16, IP, IP_TOS) + packed(ONE_OF_EACH[4:5])) == NOTHING | {"ttl": 64}


def test_two_hundred_thousand_hostile_cases_reach_every_branch_and_end_well(walker):
    seen = walker.fuzz(20_240_229, CASES)
    assert [name for name, count in seen.items() if count == 0] == []


def test_a_case_depends_on_its_seed_and_its_number_alone(walker):
    at = bytearray(8)
    whole = walker.fuzz(5, 3000, 0, at)
    assert int.from_bytes(at, "little" if struct.pack("=H", 1)[0] else "big") == 2999
    parts = [walker.fuzz(5, 1000, first) for first in (2000, 0, 1000)]
    assert whole == {name: sum(part[name] for part in parts) for name in whole}
    assert walker.fuzz(6, 3000) != whole


def test_the_fuzzer_finds_a_walk_that_lies(built, tmp_path, monkeypatch):
    folder, _ = built
    monkeypatch.setenv("CFLAGS", "-O0")
    (tmp_path / "walker.c").symlink_to(folder / "walker.c")
    liar = walking.load(walking.build(tmp_path, "WALKER_LIES"))
    with pytest.raises(AssertionError, match=r"^seed 1, case \d+: another TTL$"):
        liar.fuzz(1, 1000)


# Counts of 64 bits -------------------------------------------------------------------------------------------------


def nearest(known: int, count: int) -> int:
    """Of the counts with this lower half the one nearest to the one known, of two the lower, modulo 2**64."""
    around = [known // 2**32 * 2**32 + count + step for step in (-(2**32), 0, 2**32)]
    return min(around, key=lambda each: (abs(each - known), each)) % 2**64


def test_a_million_counts_of_32_bits_become_those_of_64_that_are_nearest(counts):
    widened, _ = counts
    dice = random.Random(32)
    for _ in range(1_000_000):
        known = dice.getrandbits(64) >> dice.randrange(64)
        count = dice.getrandbits(32) if dice.random() < 0.5 else (known + dice.randint(-5, 5)) % 2**32
        below = known & 0xFFFFFFFF
        # `nearest`, said so that a million of them take no minute; the next test holds it to the letter.
        step = (count - below + 2**31) % 2**32 - 2**31
        assert widened(known, count) == (known + step) % 2**64, (known, count)


def test_counts_beside_the_wrap_become_the_nearest(counts):
    widened, _ = counts
    beside = [at + step for at in (0, 2**31, 2**32, 2**33, 2**48, 2**63) for step in range(-3, 4)]
    for known in (each for each in beside if each >= 0):
        for count in {each % 2**32 for each in beside} | {(known + 2**31 + step) % 2**32 for step in (-1, 0, 1)}:
            assert widened(known, count) == nearest(known, count), (known, count)


def test_a_stamp_is_counted_over_the_wrap(counts):
    _, stamped = counts
    assert stamped(2**32 - 1, 2) == 2**32 + 2
    assert stamped(2**32 + 2, 2**32 - 1) == 2**32 - 1
    assert stamped(7, 9) == 9


@pytest.mark.parametrize("known", [0, 1, 2**31 - 1, 2**31, 3_000_000_000, 2**32 - 1])
def test_a_datagram_without_a_stamp_brings_no_news_of_drops(counts, known):
    # The nearest multiple of 2**32 would be the next one, from 2**31 on.
    _, stamped = counts
    assert stamped(known, 0) == 0
    assert stamped(2**32 + known, 0) == 2**32


def test_a_socket_of_many_drops_does_not_gain_any_by_a_datagram_without_a_stamp(walker):
    assert walker.drops(3_000_000_000, 0) == (3_000_000_000, 3_000_000_000)
    assert walker.drops(3_000_000_000, 3_000_000_001) == (3_000_000_001, 3_000_000_001)
    assert walker.drops(2**32 - 1, 1) == (2**32 + 1, 2**32 + 1)
    assert walker.drops(2**64 - 1, 1) == (2**64 - 1, 0), "a kernel that does not tell the socket's count"


def test_nor_does_the_twins(multicast, opened, feed):
    if multicast.BACKEND == "native":
        pytest.skip("of the twin's own count; the native one is the test before")
    rx, tx = opened.pair(feed, columns="drops")
    rx._drops = 3_000_000_000
    rx._next_look = math.inf  # the kernel knows better
    tx.send(b"without a stamp")
    assert list(rx.recv_batch().drops) == [0]
    assert rx._drops == 3_000_000_000


# Sorting -----------------------------------------------------------------------------------------------------------


def test_trains_have_so_many_datagrams_also_at_the_end_of_32_bits(walker):
    most = 2**32 - 1
    dice = random.Random(104)
    some = lambda: dice.getrandbits(32) >> dice.randrange(32)  # noqa: E731
    pairs = [(some(), some()) for _ in range(20_000)]
    for length, segment in [*pairs, (most, 2), (most, most - 1), (most, most), (most, 1), (0, 5), (0, 0), (most, 0)]:
        expected = max(1, -(-length // segment)) if segment else 1
        assert walker.trains(length, segment) == expected, (length, segment)


@pytest.fixture
def is_joined(multicast, request):
    """Whether the backend delivers what was sent to (group, interface), joined to a set of such."""
    if multicast.BACKEND == "native":
        walker = request.getfixturevalue("walker")
        return lambda joined, group, index: walker.joined(multicast._columns.joined_table(joined), group, index)

    def ask(joined, group, index):
        if len(group) == 4:
            message = (IP, IP_PKTINFO, number(index) + bytes(4) + group)
        else:
            message = (IPV6, IPV6_PKTINFO, group + number(index))
        return multicast._accounting_py.Came(0, None, [message]).is_joined(joined)

    return ask


@pytest.mark.parametrize("size", [4, 16])
def test_a_group_is_delivered_from_the_interfaces_it_was_joined_on_or_from_any(is_joined, size):
    dice = random.Random(size)
    groups = [dice.randbytes(size) for _ in range(20)] + [b"\0" * size, b"\xff" * size]
    indexes = [0, 1, 2, 255, 256, 2**24, 2**31 - 1]
    for entries in (0, 1, 2, 3, 7, 64):
        for _ in range(20):
            joined = {(dice.choice(groups), dice.choice(indexes)) for _ in range(entries)}
            for group in groups:
                for index in indexes:
                    expected = (group, index) in joined or (group, 0) in joined
                    assert is_joined(joined, group, index) == expected, (joined, group, index)
