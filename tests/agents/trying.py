"""Runs inside a host of tests/rig.py: tries what works there while everything on its loopback interface is captured.

Prints JSON: what does not work, what of the kernel's tables changed meanwhile, and the frames that came. At last it
joins what the kernel is known to report there, which shows that others would have been caught.
"""

import contextlib
import json
import os
import socket

import multicast

TABLES = ("igmp", "igmp6", "mcfilter", "mcfilter6", "udp", "udp6", "unix", "netlink", "snmp", "snmp6")
ETH_P_ALL = 3
MARKERS = (
    [(socket.AF_INET, f"239.255.255.{n}") for n in range(1, 6)],
    [(socket.AF_INET6, f"ff15::47:{n}") for n in range(1, 6)],
)


def tables():
    found = {}
    for name in TABLES:
        with contextlib.suppress(FileNotFoundError), open(f"/proc/thread-self/net/{name}", encoding="ascii") as file:
            found[name] = file.read()
    return found


def missing():
    return {each.name: each.why for each in multicast.capabilities() if not each}


def captured(packets):
    """The frames that came until the kernel had reported a join of ours, in each family, but for what reports these."""
    came = [frame for groups in MARKERS for frame in until_reported(packets, groups)]
    ours = [socket.inet_pton(*each) for groups in MARKERS for each in groups]
    return [frame.hex() for frame in came if not only(ours, frame)]


def until_reported(packets, groups):
    """The frames that came until a join was reported, of one group after the other.

    The kernel can lose a report: over IPv6 one whose join comes while it works on earlier ones (mld_ifc_work).
    """
    came = []
    with contextlib.ExitStack() as closing:
        for family, group in groups:
            sock = closing.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            multicast.join_group(sock, group, "lo")
            with contextlib.suppress(TimeoutError):
                while not came or socket.inet_pton(family, group) not in came[-1]:
                    came.append(packets.recv(65_536))
                return came
    raise TimeoutError(f"none of {groups} was reported")


def only(groups, frame):
    """Whether a report has records of these groups and no other (RFC 3376, section 4.2; RFC 3810, section 5.2)."""
    at = min((frame.index(each) for each in groups if each in frame), default=0)
    # Of a record, 4 bytes come before the group; of the report, before the first record, how many there are.
    return at > 0 and int.from_bytes(frame[at - 6 : at - 4], "big") == sum(each in frame for each in groups)


def main():
    missing()  # whatever the first call makes, such as a cache of the C library's, is there now
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as packets:
        packets.settimeout(3)
        packets.bind(("lo", ETH_P_ALL))
        before = tables()
        descriptors = sorted(os.listdir("/proc/self/fd"))
        found = missing()
        left_open = sorted(os.listdir("/proc/self/fd")) != descriptors
        after = tables()
        came = captured(packets)
    changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
    print(json.dumps({"missing": found, "changed": changed, "came": came, "left open": left_open}))


main()
