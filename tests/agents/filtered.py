"""Attaches filters, sends to itself, and tells what came: the kernel as the oracle of what a filter does.

Runs in a host of tests/rig.py, or beside the tests on the loopback interface. A case is a line of JSON on stdin, and so
is its answer. Owns no judgement. What it sends has TTL 0, so it goes nowhere, and it ends when its stdin does.
"""

import json
import select
import signal
import socket
import struct
import sys
import time

import multicast
from multicast import _filter

SO_MEMINFO, DROPS = 55, 8
NOPS = b"\1" * 8  # IPv4 options (RFC 791, 3.1)
PADDING = b"\0\0\1\4\0\0\0\0"  # IPv6 destination options: next header, length, PadN (RFC 8200, 4.2)
IPV6_DSTOPTS = 59


def sender(family, source, group, port, interface, more_headers):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    multicast.set_multicast_ttl(sock, 0)
    multicast.set_multicast_interface(sock, interface)
    if more_headers and family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, NOPS)
    elif more_headers:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, PADDING)
    sock.bind((source, 0))
    sock.connect((group, port))
    return sock


def receiver(family, group, port, interface, conditions):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    given = dict(conditions)
    if given.get("payload") is not None:
        given["payload"] = {int(offset): bytes.fromhex(data) for offset, data in given["payload"].items()}
    _filter.attach(sock, _filter.program(_filter.Filter(**given), family, "case"), "case")
    sock.bind((group, port))
    multicast.join_group(sock, group, interface)
    sock.setblocking(False)
    return sock


def received(sock, sent):
    """Receive until the kernel has accounted for all that was sent: each datagram came, or it was counted a drop."""
    came = []
    deadline = time.monotonic() + 10
    while True:
        dropped = struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[DROPS]
        try:
            while True:
                came.append(sock.recvfrom(2048))
        except BlockingIOError:
            pass
        if len(came) + dropped >= sent:
            return came, dropped
        if time.monotonic() > deadline:
            raise TimeoutError(f"{sent} sent, {len(came)} came, {dropped} dropped")
        select.select([sock], [], [], 0.01)


def main():
    signal.alarm(200)  # whatever goes wrong: this ends
    group, port, interface, sources = json.loads(sys.argv[1])
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    senders = {(each, more): sender(family, each, group, port, interface, more) for each in sources for more in (0, 1)}
    ports = [[*who, sock.getsockname()[1]] for who, sock in senders.items()]
    print(json.dumps(ports), flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        with receiver(family, group, port, interface, case["conditions"]) as sock:
            for source, more, payload in case["datagrams"]:
                senders[source, more].send(bytes.fromhex(payload))
            came, dropped = received(sock, len(case["datagrams"]))
        answer = {"came": [[sender[0], sender[1], data.hex()] for data, sender in came], "dropped": dropped}
        print(json.dumps(answer), flush=True)
    for each in senders.values():
        each.close()


main()
