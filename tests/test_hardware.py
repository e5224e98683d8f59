"""Hardware receive timestamps: what is asked of the driver, and that its answer is told as it is.

No card here makes them. So cards are played, where the package calls ioctl(2): by the structs of linux/ethtool.h and
linux/net_tstamp.h, written down once more here. What interfaces without them answer is asked of this kernel.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import sys
import types

import pytest
from net import ORDINARY, told
from refusals import HUGE, NO_INDEX, UNASSIGNED, refused, shown

pytest_plugins = ["rig_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("no_leaked_descriptors"),
    pytest.mark.skipif(sys.platform != "linux", reason="these timestamps are a thing of Linux"),
]

GET_TS_INFO, SET, GET = 0x8946, 0x89B0, 0x89B1
NONE, ALL, SOME, V1_EVENT, V2_L4_EVENT, V2_L2_EVENT, V2_EVENT, NTP_ALL = 0, 1, 2, 3, 6, 9, 12, 15
EVERYTHING = 0x5F  # SOF_TIMESTAMPING_: transmit and receive, hardware and software, software and raw hardware
WITHOUT_RAW, WITHOUT_RX, SOFTWARE = 0x1F, 0x5B, 0x18
LO = "lo (index 1)" if socket.if_nametoindex("lo") == 1 else f"lo (index {socket.if_nametoindex('lo')})"


def bits(*numbers: int) -> int:
    return sum(1 << each for each in numbers)


def named(short: str) -> str:
    return f"HWTSTAMP_FILTER_{short}"


class Card:
    """A network card in the place of the loopback interface: it answers what the driver would, and keeps what is set.

    - grants: which filter it puts in force for one that it is asked for; one that is not in it: ERANGE
    - told: whether it tells what it is set to
    """

    def __init__(self, offered: int, grants: dict[int, int], **options) -> None:
        self.offered, self.grants = offered, grants
        self.abilities = options.pop("abilities", EVERYTHING)
        self.clock = options.pop("clock", 0)
        self.tx_types = options.pop("tx_types", bits(0, 1))
        self.config = options.pop("config", (0, 0, NONE))
        self.told = options.pop("told", True)
        self.fails = options.pop("fails", {})  # errno by request
        self.asked: list[tuple[int, int, int]] = []
        self.requests: list[int] = []
        assert not options

    def ioctl(self, name: str, request: int, data: bytes) -> bytes:
        assert name == "lo"
        self.requests.append(request)
        if request in self.fails:
            raise OSError(self.fails[request], os.strerror(self.fails[request]))
        if request == GET_TS_INFO:
            assert struct.unpack("11I", data) == (0x41, *[0] * 10)
            reserved = (0, 0, 0)
            words = (self.tx_types, *reserved, self.offered, *reserved)
            return struct.pack("2Ii8I", 0x41, self.abilities, self.clock, *words)
        if request == GET:
            assert data == bytes(12)
            if not self.told:
                raise OSError(errno.EOPNOTSUPP, "not supported")
            return struct.pack("3i", *self.config)
        assert request == SET
        flags, tx_type, wanted = struct.unpack("3i", data)
        self.asked.append((flags, tx_type, wanted))
        if wanted not in self.grants and wanted != NONE:
            raise OSError(errno.ERANGE, "out of range")
        self.config = (flags, tx_type, self.grants.get(wanted, NONE))
        return struct.pack("3i", *self.config)


@pytest.fixture
def card(multicast, monkeypatch):
    def insert(*arguments, **options) -> Card:
        made = Card(*arguments, **options)
        monkeypatch.setattr(multicast._hardware, "ioctl", made.ioctl)
        return made

    return insert


# What a card can do ------------------------------------------------------------------------------------------------


def test_a_card_that_stamps_everything(multicast, card):
    card(bits(NONE, ALL), {ALL: ALL}, clock=3, config=(0, 1, ALL))
    found = multicast.hardware_timestamps("lo")
    assert type(found) is multicast.HardwareTimestamps
    assert found.as_dict() == {
        "interface": "lo",
        "supported": True,
        "filters": (named("NONE"), named("ALL")),
        "filter": named("ALL"),
        "clock": 3,
    }


@pytest.mark.parametrize("interface", ["lo", "the index", "127.0.0.1", "the Interface"])
def test_the_interface_can_be_named_in_every_way(multicast, card, interface):
    card(bits(NONE, ALL), {ALL: ALL})
    (lo,) = [each for each in multicast.interfaces() if each.name == "lo"]
    interface = {"the index": lo.index, "the Interface": lo}.get(interface, interface)
    assert multicast.hardware_timestamps(interface).interface == "lo"
    assert multicast.set_hardware_timestamps(interface) == named("ALL")


def test_the_names_of_the_filters_are_those_of_the_kernel(multicast, card):
    """By their order in linux/net_tstamp.h; what is newer than that has its number."""
    names = "NONE ALL SOME PTP_V1_L4_EVENT PTP_V1_L4_SYNC PTP_V1_L4_DELAY_REQ PTP_V2_L4_EVENT PTP_V2_L4_SYNC "
    names += "PTP_V2_L4_DELAY_REQ PTP_V2_L2_EVENT PTP_V2_L2_SYNC PTP_V2_L2_DELAY_REQ PTP_V2_EVENT PTP_V2_SYNC "
    names += "PTP_V2_DELAY_REQ NTP_ALL 16 17"
    card(bits(*range(18)), {}, config=(0, 0, 31))
    found = multicast.hardware_timestamps("lo")
    assert found.filters == tuple(map(named, names.split()))
    assert found.filter == named("31")
    card(0xFFFFFFFF, {}, config=(0, 0, -1))
    found = multicast.hardware_timestamps("lo")
    assert found.filters[-1] == named("31")
    assert found.filter == named("-1")


def test_the_header_of_this_machine_has_the_same_names(multicast):
    header = "/usr/include/linux/net_tstamp.h"
    if not os.path.exists(header):
        pytest.skip(f"no {header} (on Debian and Ubuntu: linux-libc-dev)")
    with open(header, encoding="utf-8") as file:
        listed = re.search(r"enum hwtstamp_rx_filters \{(.*?)\};", file.read(), re.DOTALL)[1]
    names = re.findall(r"^\s*HWTSTAMP_FILTER_(\w+),", listed, re.MULTILINE)
    assert names == list(multicast._hardware._FILTERS[: len(names)])
    assert len(names) >= 15  # NTP_ALL came with Linux 4.13


@pytest.mark.parametrize("abilities", [WITHOUT_RAW, WITHOUT_RX, SOFTWARE, 0])
def test_a_card_has_to_stamp_what_it_receives_and_to_hand_that_out(multicast, card, abilities):
    card(bits(NONE, ALL), {ALL: ALL}, abilities=abilities)
    assert multicast.hardware_timestamps("lo").supported is False
    text = f"set_hardware_timestamps: {LO} has no hardware receive timestamps; ask for software ones"
    for enabled in (True, False):
        error = refused(errno.EOPNOTSUPP, lambda on=enabled: multicast.set_hardware_timestamps("lo", on))
        assert error.strerror == text


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EPERM])
def test_a_driver_that_does_not_tell_its_setting_is_no_error(multicast, card, number):
    card(bits(NONE, ALL), {ALL: ALL}, fails={GET: number}, clock=-1)
    found = multicast.hardware_timestamps("lo")
    assert (found.supported, found.filter, found.clock) == (True, None, None)


def test_a_driver_that_tells_nothing_is_one_that_has_none(multicast, card):
    card(0, {}, fails={GET_TS_INFO: errno.EOPNOTSUPP, GET: errno.EOPNOTSUPP})
    found = multicast.hardware_timestamps("lo")
    assert (found.supported, found.filters, found.filter, found.clock) == (False, (), None, None)


@pytest.mark.parametrize("request_", [GET_TS_INFO, GET])
@pytest.mark.parametrize("call", ["hardware_timestamps", "set_hardware_timestamps"])
def test_an_interface_that_goes_meanwhile_is_an_error(multicast, card, call, request_):
    card(bits(NONE, ALL), {ALL: ALL}, fails={request_: errno.ENODEV})
    refused(errno.ENODEV, lambda: getattr(multicast, call)("lo"), f"{call} {LO}: ")


# Switching it on and off -------------------------------------------------------------------------------------------


def test_everything_is_asked_for_and_granted(multicast, card):
    made = card(bits(NONE, ALL, V2_EVENT), {ALL: ALL, V2_EVENT: V2_EVENT})
    assert multicast.set_hardware_timestamps("lo") == named("ALL")
    assert made.asked == [(0, 0, ALL)]
    assert multicast.hardware_timestamps("lo").filter == named("ALL")
    assert multicast.set_hardware_timestamps("lo", False) == named("NONE")
    assert made.asked[1:] == [(0, 0, NONE)]
    assert multicast.hardware_timestamps("lo").filter == named("NONE")


@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("tx_type", [0, 1, 2, 3])
def test_how_it_stamps_what_is_sent_stays_as_it_is(multicast, card, tx_type, flags):
    made = card(bits(NONE, ALL), {ALL: ALL}, config=(flags, tx_type, V2_EVENT))
    multicast.set_hardware_timestamps("lo")
    assert made.config == (flags, tx_type, ALL)
    multicast.set_hardware_timestamps("lo", False)
    assert made.config == (flags, tx_type, NONE)


@pytest.mark.parametrize(("tx_types", "left"), [(bits(0, 1), 1), (bits(0), 0), (0, 0)])
def test_where_that_is_not_told_it_is_left_possible_if_the_card_can(multicast, card, tx_types, left):
    made = card(bits(NONE, ALL), {ALL: ALL}, told=False, tx_types=tx_types)
    assert multicast.set_hardware_timestamps("lo") == named("ALL")
    assert made.asked == [(0, left, ALL)]


def test_without_a_filter_for_all_the_widest_for_udp_is_asked_for(multicast, card):
    made = card(bits(NONE, V1_EVENT, V2_L4_EVENT, V2_L2_EVENT, V2_EVENT), {V2_EVENT: V2_EVENT})
    assert multicast.set_hardware_timestamps("lo") == named("PTP_V2_EVENT")
    assert made.asked == [(0, 0, V2_EVENT)]


@pytest.mark.parametrize(("granted", "name"), [(ALL, "ALL"), (SOME, "SOME"), (NTP_ALL, "NTP_ALL"), (NONE, "NONE")])
def test_what_was_granted_is_what_is_told(multicast, card, granted, name):
    card(bits(NONE, V2_L4_EVENT), {V2_L4_EVENT: granted})
    assert multicast.set_hardware_timestamps("lo") == named(name)
    assert multicast.hardware_timestamps("lo").filter == named(name)


def test_what_the_card_offers_and_then_refuses_gives_way_to_the_next(multicast, card):
    made = card(bits(NONE, NTP_ALL, V2_EVENT, V2_L4_EVENT, V1_EVENT), {V2_L4_EVENT: V2_L4_EVENT})
    assert multicast.set_hardware_timestamps("lo") == named("PTP_V2_L4_EVENT")
    assert [wanted for _, _, wanted in made.asked] == [NTP_ALL, V2_EVENT, V2_L4_EVENT]


def test_after_another_refusal_than_of_the_filter_none_is_tried(multicast, card):
    made = card(bits(NONE, NTP_ALL, V2_EVENT), {V2_EVENT: V2_EVENT}, fails={SET: errno.EPERM})
    refused(errno.EPERM, lambda: multicast.set_hardware_timestamps("lo"))
    assert made.requests.count(SET) == 1


def test_a_card_that_refuses_all_it_offers_is_out_of_range(multicast, card):
    made = card(bits(NONE, ALL), {})
    words = f"set_hardware_timestamps {LO}: ", "refused HWTSTAMP_FILTER_ALL; ask for software timestamps"
    refused(errno.ERANGE, lambda: multicast.set_hardware_timestamps("lo"), *words)
    assert made.config == (0, 0, NONE)
    card(bits(NONE, V2_EVENT, V1_EVENT), {})
    words = (words[0], "refused HWTSTAMP_FILTER_PTP_V2_EVENT, HWTSTAMP_FILTER_PTP_V1_L4_EVENT; ")
    refused(errno.ERANGE, lambda: multicast.set_hardware_timestamps("lo"), *words)


@pytest.mark.parametrize(
    ("offered", "listed"),
    [
        (bits(NONE, V2_L2_EVENT), " for UDP (it offers HWTSTAMP_FILTER_NONE, HWTSTAMP_FILTER_PTP_V2_L2_EVENT)"),
        (bits(NONE), " for UDP (it offers HWTSTAMP_FILTER_NONE)"),
        (0, ""),
    ],
    ids=["over Ethernet alone", "none", "nothing"],
)
def test_a_card_without_a_filter_for_udp_is_not_asked(multicast, card, offered, listed):
    made = card(offered, {})
    error = refused(errno.EOPNOTSUPP, lambda: multicast.set_hardware_timestamps("lo"))
    assert error.strerror == (
        f"set_hardware_timestamps: {LO} has no hardware receive timestamps{listed}; ask for software ones"
    )
    assert made.asked == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, ["needs CAP_NET_ADMIN"]),
        (errno.EBUSY, []),
        (errno.EOPNOTSUPP, ["has no hardware receive timestamps; ask for software ones"]),
    ],
)
def test_a_refusal_says_why_and_of_which_interface(multicast, card, number, words):
    made = card(bits(NONE, ALL), {ALL: ALL}, fails={SET: number})
    refused(number, lambda: multicast.set_hardware_timestamps("lo"), "set_hardware_timestamps", LO, *words)
    assert made.config == (0, 0, NONE)


@pytest.mark.parametrize(
    ("offered", "in_force", "enabled"),
    [
        (bits(NONE, ALL), ALL, True),
        (bits(NONE, ALL), NONE, False),
        (bits(NONE, V2_EVENT), ALL, True),
        (bits(NONE, V2_EVENT), SOME, True),
        (bits(NONE, NTP_ALL, V2_EVENT, V2_L4_EVENT), V2_L4_EVENT, True),
    ],
)
def test_what_is_so_already_is_not_set_again_and_any_user_may_ask(multicast, card, offered, in_force, enabled):
    made = card(offered, {}, config=(0, 1, in_force), fails={SET: errno.EPERM})
    before = multicast.hardware_timestamps("lo").filter
    assert multicast.set_hardware_timestamps("lo", enabled) == before
    assert made.asked == []


@pytest.mark.parametrize("in_force", [SOME, V2_EVENT, NTP_ALL, NONE])
def test_another_filter_in_force_gives_way_to_all(multicast, card, in_force):
    made = card(bits(NONE, ALL, V2_EVENT), {ALL: ALL}, config=(0, 1, in_force))
    assert multicast.set_hardware_timestamps("lo") == named("ALL")
    assert made.asked == [(0, 1, ALL)]


# This kernel -------------------------------------------------------------------------------------------------------


def test_the_loopback_interface_has_none(multicast):
    assert multicast.hardware_timestamps("lo").as_dict() == {
        "interface": "lo",
        "supported": False,
        "filters": (),
        "filter": None,
        "clock": None,
    }
    for enabled in (True, False):
        error = refused(errno.EOPNOTSUPP, lambda on=enabled: multicast.set_hardware_timestamps("lo", on))
        assert error.strerror == (
            f"set_hardware_timestamps: {LO} has no hardware receive timestamps; ask for software ones"
        )


def test_the_kernel_is_asked_in_its_own_structs(multicast):
    """It fills what it is given: SOF_TIMESTAMPING_RX_SOFTWARE and SOFTWARE, which every interface has, and no clock."""
    answer = multicast._hardware.ioctl("lo", GET_TS_INFO, struct.pack("11I", 0x41, *[0] * 10))
    command, abilities, clock, *_ = struct.unpack("2Ii8I", answer)
    assert (command, abilities & SOFTWARE, clock) == (0x41, SOFTWARE, -1)
    for request in (GET, SET):
        with pytest.raises(OSError) as caught:
            multicast._hardware.ioctl("lo", request, bytes(12))
        assert caught.value.errno in (errno.EOPNOTSUPP, errno.EPERM)  # known, but not of this interface or user
    with pytest.raises(OSError) as caught:
        multicast._hardware.ioctl("no such one", GET, bytes(12))
    assert caught.value.errno == errno.ENODEV


VETH = """
import json, sys
import multicast
found = multicast.hardware_timestamps("feed0").as_dict()
try:
    multicast.set_hardware_timestamps(10)
except OSError as error:
    print(json.dumps([found, error.errno, error.strerror]))
"""


def test_a_virtual_interface_has_none(multicast, rig):
    found, number, text = told(multicast, VETH, inside=rig.rx)
    assert found == {"interface": "feed0", "supported": False, "filters": [], "filter": None, "clock": None}
    assert number == errno.EOPNOTSUPP
    wanted = "set_hardware_timestamps: feed0 (index 10) has no hardware receive timestamps; ask for software ones"
    assert text == wanted


ANY_USER = (
    """
import json
import multicast
"""
    + ORDINARY
    + """
print(json.dumps(multicast.hardware_timestamps("lo").as_dict()))
"""
)


def test_any_user_may_ask(multicast):
    assert told(multicast, ANY_USER)["supported"] is False


# Arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["hardware_timestamps", "set_hardware_timestamps"])
class TestArguments:
    @pytest.mark.parametrize("value", [None, True, 1.5, b"lo", [], object()], ids=shown)
    def test_no_interface_is_refused(self, multicast, call, value):
        refused(TypeError, lambda: getattr(multicast, call)(value), f"{call}: interface is a name, an index, ")

    @pytest.mark.parametrize("value", [0, -1, 2**31, HUGE], ids=shown)
    def test_an_index_out_of_range_is_refused(self, multicast, call, value):
        refused(ValueError, lambda: getattr(multicast, call)(value), f"{call}: an interface's index ")

    @pytest.mark.parametrize(
        ("value", "number"),
        [("no such one", errno.ENODEV), (NO_INDEX, errno.ENODEV), (UNASSIGNED, errno.EADDRNOTAVAIL)],
    )
    def test_one_that_is_not_there_is_named(self, multicast, call, value, number):
        refused(number, lambda: getattr(multicast, call)(value), f"{call}: no interface ", str(value))

    def test_other_systems_are_not_asked(self, multicast, call, monkeypatch):
        elsewhere = types.SimpleNamespace(platform="darwin")
        monkeypatch.setattr(multicast._hardware, "sys", elsewhere)
        monkeypatch.setattr(multicast._errors, "sys", elsewhere)
        refused(errno.ENOSYS, lambda: getattr(multicast, call)("lo"), f"{call}: this is for Linux, not darwin")


@pytest.mark.parametrize("value", [None, 2, "on", 0.0], ids=shown)
def test_on_or_off_is_all_that_can_be_asked_for(multicast, value):
    call = lambda: multicast.set_hardware_timestamps("lo", value)  # noqa: E731
    refused(TypeError, call, "set_hardware_timestamps: enabled is True or False")
