"""Commands for agents/host.py: frames put on a link as they are, the kernel's counters, and what came with its columns.

Owns no judgement. Must not make a frame: they come in a file, each after its link (a byte) and its length (4 bytes).
"""

import hashlib
import socket
import struct
import time

from __main__ import receivers, senders

frames = []


def do_load(path, links):
    """Read the frames of a file; the number before each means one of these links."""
    with open(path, "rb") as file:
        data = file.read()
    frames.clear()
    at = 0
    while at < len(data):
        link, length = struct.unpack_from("!BI", data, at)
        frames.append((links[link], data[at + 5 : at + 5 + length]))
        at += 5 + length
    return len(frames)


def do_inject(first, count):
    """Put these frames on their links; what is sent from this one CPU arrives in order."""
    for link, frame in frames[first : first + count]:
        if link not in senders:
            senders[link] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            senders[link].bind((link, 0))  # no protocol: nothing is received
        senders[link].send(frame)


def do_counters():
    """What this host's kernel has counted of IP and UDP (/proc/net/snmp, netstat, snmp6), and fragments that wait."""
    found = {}
    for path in ("/proc/self/net/snmp", "/proc/self/net/netstat"):
        with open(path) as file:
            for names, values in zip(file, file, strict=True):
                group, *rest = names.split()
                found |= {
                    group.removesuffix(":") + name: int(n) for name, n in zip(rest, values.split()[1:], strict=True)
                }
    with open("/proc/self/net/snmp6") as file:
        found |= {name: int(n) for name, n in map(str.split, file)}
    waiting = 0
    for path in ("/proc/self/net/sockstat", "/proc/self/net/sockstat6"):
        with open(path) as file:
            waiting += sum(int(line.split()[2]) for line in file if line.startswith("FRAG"))
    return found | {"waiting": waiting}


def do_rows(name, end, seconds):
    """Receive until the payload `end` (hexadecimal) comes; a row of each datagram before it."""
    rows = []
    wanted = bytes.fromhex(end)
    deadline = time.monotonic() + seconds
    while True:
        batch = receivers[name].recv_batch(timeout=max(0.001, deadline - time.monotonic()))
        for i, view in enumerate(batch):
            if view == wanted:
                if i + 1 < len(batch):
                    raise AssertionError(f"{len(batch) - i - 1} more after the end")
                return rows
            rows.append(row(batch, i, view))


def do_steal(name):
    """Take a datagram away behind the receiver's back."""
    receivers[name].socket.recv(1, socket.MSG_DONTWAIT)


def row(batch, i, view):
    return {
        "payload": digest(view),
        "length": len(view),
        "real length": batch.real_lengths[i],
        "truncated": bool(batch.truncated[i]),
        "source": list(batch.source(i)[:2]),
        "destination": batch.destination(i),
        "interface": batch.interface(i),
        "ttl": batch.ttls[i],
        "tos": batch.tos[i],
        "stamped": batch.timestamps[i] > 0 and batch.timestamp_kind(i) == "software",
    }


def digest(data):
    return hashlib.blake2b(data, digest_size=8).hexdigest()
