"""The command line and socat(1) or mcjoin(1), the distribution's, hear each other from host to host, both ways.

Owns the processes. Must not wait to see that something does not come.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
import sys
import time

import pytest
from net import python_environment, tool
from rig import DEADLINE

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 42_000


@pytest.fixture(scope="module")
def socat() -> str:
    """Where it is."""
    return tool("socat", "socat")


@pytest.fixture(scope="module")
def mcjoin() -> str:
    """Where it is; a skip where it is not, with CI set, too: Debian 12 has none. Where there is one, CI installs it."""
    found = shutil.which("mcjoin")
    if found is None:
        pytest.skip("mcjoin is not installed (Debian 12 has no such package; source: github.com/troglobit/mcjoin)")
    return found


def joined(host, group: str) -> None:
    """Wait until somebody on a host has joined a group; of IPv4 the kernel lists a number in its own byte order."""
    address = ipaddress.ip_address(group)
    if address.version == 6:
        path, listed = "/proc/net/igmp6", address.packed.hex()
    else:
        path, listed = "/proc/net/igmp", f"{int.from_bytes(address.packed, sys.byteorder):08X}"
    deadline = time.monotonic() + DEADLINE
    while listed not in host.read(path):
        assert time.monotonic() < deadline, f"nobody joined {group} within {DEADLINE} s"
        time.sleep(0.01)


def test_socat_gets_what_our_command_sends(rig, multicast, socat, tmp_path):
    group = "239.195.8.1"
    address = f"UDP4-RECV:{PORT},bind={group},ip-add-membership={group}:192.0.2.1,reuseaddr"
    command = rig.rx.inside(socat, "-u", "-T", str(DEADLINE), address, "STDOUT")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as receiver:
        try:
            joined(rig.rx, group)
            expected = bytes(range(256)) * 5
            (tmp_path / "sent").write_bytes(expected)
            done = subprocess.run(
                rig.tx.inside(
                    *(sys.executable, "-P", "-m", "multicast", "send", f"{group}:{PORT}%feed0"),
                    *("--file", str(tmp_path / "sent"), "--size", "100", "--rate", "1000"),
                ),
                env=python_environment(multicast),
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert receiver.stdout.read(len(expected)) == expected
        finally:
            receiver.kill()


def test_our_receiver_gets_what_socat_sends(rig, agent, socat):
    group = "239.195.8.2"
    receiver = agent(rig.rx).receiver(group, PORT, interface="feed0")
    address = f"UDP4-DATAGRAM:{group}:{PORT},ip-multicast-if=192.0.2.11,ip-multicast-ttl=1"
    for payload in ("first", "", "second", "x" * 1400, "end"):
        # It sends what it reads at once; of nothing it sends nothing.
        rig.tx.run(socat, "-u", "STDIN", address, stdin=payload)
    assert receiver.until("end") == ["first", "second", "x" * 1400, "end"]


# mcjoin's datagrams are text, "Sender PID 7, MC group 239.1.1.1 ... count: 0, freq: 100", and NULs up to 100 bytes.
# What it takes for valid has "count: " in it.
FEEDS = [("239.195.8.3", None), ("232.195.8.3", "192.0.2.11"), ("ff15::195:8", None)]


def feed_of(group: str, source: str | None) -> str:
    place = f"[{group}]" if ":" in group else group
    return f"{'' if source is None else source + '@'}{place}:{PORT}%feed0"


@pytest.mark.parametrize(("group", "source"), FEEDS)
def test_mcjoin_gets_what_our_command_sends(rig, multicast, mcjoin, group, source):
    wanted = group if source is None else f"{source},{group}"
    command = rig.rx.inside(mcjoin, "-o", "-i", "feed0", "-p", str(PORT), "-c", "5", wanted)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as receiver:
        try:
            joined(rig.rx, group)
            sent = [f"count: {number}" for number in range(5)]
            done = subprocess.run(
                rig.tx.inside(sys.executable, "-P", "-m", "multicast", "send", feed_of(group, source), *sent),
                env=python_environment(multicast),
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            assert (done.returncode, done.stderr) == (0, "")
            said, _ = receiver.communicate(timeout=DEADLINE)
        finally:
            receiver.kill()
    assert "total: 5 packets" in said.lower()
    assert re.findall(r"(?:invalid|gaps|reorder|dupes) +[1-9]", said) == []


@pytest.mark.parametrize(("group", "source"), FEEDS)
def test_our_command_gets_what_mcjoin_sends(rig, multicast, mcjoin, group, source):
    words = ["listen", feed_of(group, source), "-c", "5", "-W", str(DEADLINE), "--dump", "text"]
    with subprocess.Popen(
        rig.rx.inside(sys.executable, "-P", "-m", "multicast", *words),
        env=python_environment(multicast),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as receiver:
        try:
            joined(rig.rx, group)
            rig.tx.run(mcjoin, "-o", "-s", "-i", "feed0", "-p", str(PORT), "-f", "10", "-c", "5", group)
            said, _ = receiver.communicate(timeout=DEADLINE)
        finally:
            receiver.kill()
    assert receiver.returncode == 0
    found = [
        re.match(rf"Sender PID \d+, MC group {re.escape(group)} \.\.\. count: (\d+)", each)
        for each in said.splitlines()
    ]
    numbers = [int(each[1]) for each in found]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
