"""`multicast interfaces`: what is joined is shown where it was joined, with who is bound to it."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
from argparse import Namespace

import pytest
from net import python_environment

from multicast import __main__ as program
from multicast import _interfaces, _proc_net
from multicast.cli import interfaces as command

pytest_plugins = ["rig_fixtures"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="groups are shown on Linux alone")


def shown(capsys, *, as_json):
    assert command.run(Namespace(json=as_json)) == 0
    return capsys.readouterr().out


def listed(capsys):
    return [json.loads(line) for line in shown(capsys, as_json=True).splitlines()]


def test_each_interface_is_an_object(capsys, multicast):
    found = listed(capsys)
    assert [(each["index"], each["name"], tuple(each["addresses"])) for each in found] == [
        (each.index, each.name, each.addresses) for each in multicast.interfaces()
    ]
    for each, there in zip(found, multicast.interfaces(), strict=True):
        assert [flag in each["flags"] for flag in ("UP", "MULTICAST", "LOOPBACK")] == [
            there.up,
            there.multicast,
            there.loopback,
        ]


@linux
def test_the_mtu_is_that_which_the_kernel_shows(capsys):
    import fcntl

    siocgifmtu = 0x8921  # netdevice(7); sysfs may show the interfaces of another network namespace
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for each in listed(capsys):
            answer = fcntl.ioctl(asking, siocgifmtu, struct.pack("16si20x", each["name"].encode(), 0))
            assert each["mtu_bytes"] == struct.unpack("16si20x", answer)[1]


@linux
def test_a_receiver_is_found_by_what_it_is_bound_to(capsys, multicast, feed):
    group, port = feed
    with multicast.open_receiver(group, port, interface="lo"):
        (lo,) = [each for each in listed(capsys) if each["name"] == "lo"]
        (found,) = [each for each in lo["groups"] if each["group"] == group]
        assert found["users"] == 1
        assert [(each["port"], each["uid"], each["pid"]) for each in found["bound"]] == [
            (port, os.getuid(), os.getpid())
        ]
        (row,) = [each for each in shown(capsys, as_json=False).splitlines() if f" {group} " in each]
        assert row.split()[:4] == ["lo", group, "1", "any"]
        assert f"port {port}: " in row
        assert f"({os.getpid()})" in row
    assert group not in shown(capsys, as_json=False)


@linux
def test_a_process_that_may_not_be_seen_is_told_by_its_user(capsys, monkeypatch, multicast, feed):
    group, port = feed
    monkeypatch.setattr(_proc_net, "owners", lambda inodes: {})
    with multicast.open_receiver(group, port, interface="lo"):
        assert f"port {port}: of user {os.getuid()}" in shown(capsys, as_json=False)


def test_elsewhere_there_is_what_the_system_tells(capsys, monkeypatch):
    monkeypatch.setattr(command.sys, "platform", "darwin")
    there = _interfaces.Interface(name="en0", index=1, addresses=(), up=True, multicast=True, loopback=False)
    monkeypatch.setattr(_interfaces, "interfaces", lambda: [there])
    (found,) = listed(capsys)
    assert found == {
        "index": 1,
        "name": "en0",
        "addresses": [],
        "flags": ["UP", "MULTICAST"],
        "mtu_bytes": None,
        "groups": None,
    }
    assert shown(capsys, as_json=False).splitlines() == [
        "index  name  MTU  address  flags",
        "    1  en0     -  -        UP MULTICAST",
    ]


def test_in_a_host_of_its_own_sources_are_shown_on_the_interface_that_was_joined(multicast, rig, agent):
    there = agent(rig.rx)
    there.call(
        "open", name="a", group="232.1.2.3", port=4000, options={"interface": "feed1", "source": "198.51.100.11"}
    )
    there.call("open", name="b", group="ff3e::99", port=4001, options={"interface": "feed0"})
    done = subprocess.run(
        rig.rx.inside(sys.executable, "-P", "-m", "multicast", "interfaces", "--json"),
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert list(found) == ["lo", "feed0", "feed1"]
    assert set(found["feed0"]["flags"]) >= {"UP", "LOWER_UP", "MULTICAST"}
    groups = {name: {each["group"]: each for each in found[name]["groups"]} for name in found}
    assert groups["feed1"]["232.1.2.3"]["included_sources"] == ["198.51.100.11"]
    assert groups["feed0"]["ff3e::99"]["included_sources"] == []
    for name, group, port in (("feed1", "232.1.2.3", 4000), ("feed0", "ff3e::99", 4001)):
        assert [(each["pid"], each["port"]) for each in groups[name][group]["bound"]] == [(there.pid, port)]
    assert "232.1.2.3" not in groups["feed0"]


def test_the_lines_of_its_page_run(capsys):
    page = (pathlib.Path(__file__).parent.parent / "docs" / "commands" / "interfaces.md").read_text("utf-8")
    lines = [line.split()[1:] for line in page.splitlines() if line.startswith("multicast ")]
    assert lines == [["interfaces"], ["interfaces", "--json"]]
    for line in lines:
        assert program.main(line) == 0
        assert capsys.readouterr().err == ""
