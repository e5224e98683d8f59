"""What SECURITY.md says about other users of this host and other hosts of the segment, tried."""

from __future__ import annotations

import errno
import ipaddress
import sys

import pytest
from frames import UDP, Packet, ipv4, udp
from net import ORDINARY, told

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="as the kernel of Linux has it")

# A plain socket of another user (of the same one, where the tests are not run by root).
OTHER = (
    "import json, socket, struct, sys"  # while it may still read them
    + ORDINARY
    + """
group, port, said = sys.argv[1], int(sys.argv[2]), []
LO = struct.pack("@4s4si", bytes(4), socket.inet_aton("127.0.0.1"), socket.if_nametoindex("lo"))
def new():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, LO)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    return sock
def attempt(call, *arguments):
    try:
        call(*arguments)
        said.append(0)
    except OSError as error:
        said.append(error.errno)
"""
)
SHARE = (
    OTHER
    + """
for address in (group, ""):
    sock = new()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    attempt(sock.bind, (address, port))
    if said[-1] == 0:
        joined = struct.pack("@4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex("lo"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        new().sendto(b"as if of the feed", (group, port))
        said.append(sock.recv(100).decode())
print(json.dumps(said))
"""
)


def test_another_user_gets_a_copy_and_sends_as_the_feed_does(multicast, opened, feed):
    receiver = opened.receiver(feed)
    assert told(multicast, SHARE, *feed) == [0, "as if of the feed"] * 2
    assert [bytes(view) for view in receiver.recv_batch()] == [b"as if of the feed"] * 2


def test_nobody_shares_an_exclusive_receivers_group(multicast, opened, feed):
    opened.receiver(feed, exclusive=True)
    assert told(multicast, SHARE, *feed) == [errno.EADDRINUSE] * 2


def test_a_user_without_privileges_sends_from_no_foreign_address(multicast, opened, feed):
    """IP_FREEBIND lets anybody bind to a foreign address; sending from it fails."""
    receiver = opened.receiver(feed)
    code = """
IP_FREEBIND = 15
for address in ("127.0.0.1", "192.0.2.99"):
    sock = new()
    sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    sock.bind((address, 0))
    attempt(sock.sendto, address.encode(), (group, port))
IP_TRANSPARENT = 19
attempt(new().setsockopt, socket.IPPROTO_IP, IP_TRANSPARENT, 1)
print(json.dumps(said))
"""
    own, foreign, transparent = told(multicast, OTHER + code, *feed)
    assert own == 0
    assert foreign != 0
    assert transparent != 0
    assert [bytes(view) for view in receiver.recv_batch()] == [b"127.0.0.1"]


RAW = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.11"))
    sock.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))
"""
GROUP, PORT = "232.1.2.3", 40_000


def forged(source: str, payload: bytes) -> str:
    addresses = [ipaddress.ip_address(each) for each in (source, GROUP)]
    packet = Packet(*addresses, source_port=PORT, port=PORT, payload=payload, ttl=255, tos=0, protocol=UDP)
    return ipv4(packet, udp(packet)).hex()


@pytest.fixture(params=[0, 1], ids=["rp_filter off", "strict rp_filter"])
def strict(rig, request):
    """Strict reverse-path filtering on the receiving host, and none; the greater of the two settings is in force."""
    paths = [f"/proc/sys/net/ipv4/conf/{name}/rp_filter" for name in ("all", "feed0")]
    before = [rig.rx.read(path) for path in paths]
    for path, value in zip(paths, (0, request.param), strict=True):
        rig.rx.write(path, str(value))
    yield bool(request.param)
    for path, value in zip(paths, before, strict=True):
        rig.rx.write(path, value)


def test_a_forged_source_passes_a_source_filter(multicast, rig, agent, strict):
    """Nobody has these addresses; the one belongs behind another interface, which strict rp_filter minds."""
    neighbour, elsewhere = "192.0.2.99", "198.51.100.99"
    feed = agent(rig.rx).receiver(GROUP, PORT, interface="feed0", source=[neighbour, elsewhere])
    for source, payload in ((elsewhere, b"elsewhere"), (neighbour, b"neighbour")):
        rig.tx.run(sys.executable, "-c", RAW, forged(source, payload), GROUP)
    assert feed.until("neighbour") == ["elsewhere"] * (not strict) + ["neighbour"]
