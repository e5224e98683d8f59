"""The counters that drivers keep of an interface: a veth pair's has some, that of the loopback none."""

from __future__ import annotations

import errno
import sys

import pytest
from net import told, tool

import multicast as package
from multicast import _ethtool

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ethtool is Linux's")

ASK = "import json, sys; from multicast import _ethtool; print(json.dumps(_ethtool.statistics(sys.argv[1])))"


def test_a_drivers_counters_are_those_that_ethtool_prints(rig):
    tool("ethtool", "ethtool")
    found = told(package, ASK, "feed0", inside=rig.rx)
    printed = rig.rx.run("ethtool", "-S", "feed0").splitlines()[1:]
    assert list(found) == [line.rpartition(":")[0].strip() for line in printed]
    assert found["peer_ifindex"] == int(next(line for line in printed if "peer_ifindex" in line).split(":")[1])


def test_a_driver_may_have_none():
    assert _ethtool.statistics("lo") == {}
    with pytest.raises(OSError) as caught:
        _ethtool.statistics("absent0")
    assert caught.value.errno == errno.ENODEV


def test_counters_that_became_more_between_being_named_and_read_are_left_out(monkeypatch):
    def ioctl(name, request, data):
        kind = int.from_bytes(data[:4], sys.byteorder)
        answers = {
            0x37: _ethtool._SETS.pack(kind, 0, 2) + (1).to_bytes(4, sys.byteorder),
            0x1B: _ethtool._STRINGS.pack(kind, 1, 1) + b"rx_missed".ljust(32, b"\0"),
            0x1D: _ethtool._STATS.pack(kind, grown) + (7).to_bytes(8, sys.byteorder) * 2,
        }
        return answers[kind]

    monkeypatch.setattr(_ethtool, "ioctl", ioctl)
    grown = 1
    assert _ethtool.statistics("eth0") == {"rx_missed": 7}
    grown = 2
    assert _ethtool.statistics("eth0") == {}
