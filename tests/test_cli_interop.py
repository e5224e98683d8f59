"""The command line and socat(1), the distribution's, hear each other from host to host: payloads are equal both ways.

Owns the processes. Must not wait to see that something does not come.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from net import python_environment, tool
from rig import DEADLINE

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 42_000


@pytest.fixture(scope="module", autouse=True)
def socat() -> str:
    """Where it is."""
    return tool("socat", "socat")


def joined(host, group: str) -> None:
    """Wait until somebody on a host has joined a group; the kernel lists it as a number in its own byte order."""
    number = int.from_bytes(bytes(map(int, group.split("."))), sys.byteorder)
    deadline = time.monotonic() + DEADLINE
    while f"{number:08X}" not in host.read("/proc/net/igmp"):
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
