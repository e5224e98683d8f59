"""What Linux shows of multicast below /proc/net: groups and sources of interfaces, and UDP sockets (proc_net(5)).

Owns the formats: each `parse_...` is a function of a file's text. Must not conclude anything from them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple

_HEAD = Path("/proc/net")
_RECEIVED = ("bytes", "packets", "errors", "dropped", "fifo", "frame", "compressed", "multicast")  # of dev, its heads


class Group(NamedTuple):
    """A group that an interface (its index) is in; users are sockets and parts of the kernel."""

    interface: int
    group: str
    users: int


class Source(NamedTuple):
    """A source of a group on an interface, and how many sockets include it or exclude it."""

    interface: int
    group: str
    source: str
    included: int
    excluded: int


class UdpSocket(NamedTuple):
    """A UDP socket: the address that it is bound to, whose it is, and what it dropped."""

    address: str
    port: int
    uid: int
    inode: int
    drops: int


def parse_igmp(text: str) -> tuple[list[Group], dict[int, str]]:
    """Read igmp: the groups, and by interface the version of IGMP in force ("V1" to "V3")."""
    groups, versions, index = [], {}, 0
    for line in text.splitlines()[1:]:
        fields = line.split()
        if not line[:1].isspace():
            index = int(fields[0])
            versions[index] = fields[-1]
        else:
            groups.append(Group(index, _host_order(fields[0]), int(fields[1])))
    return groups, versions


def parse_igmp6(text: str) -> list[Group]:
    """Read igmp6, which has no head."""
    rows = (line.split() for line in text.splitlines())
    return [Group(int(row[0]), _plain(row[2]), int(row[3])) for row in rows]


def parse_mcfilter(text: str) -> list[Source]:
    """Read mcfilter or mcfilter6."""
    rows = (line.split() for line in text.splitlines()[1:])
    # The name, row[1], is cut off at six letters.
    return [Source(int(row[0]), _plain(row[2]), _plain(row[3]), int(row[4]), int(row[5])) for row in rows]


def parse_udp(text: str) -> list[UdpSocket]:
    """Read udp or udp6."""
    sockets = []
    for line in text.splitlines()[1:]:
        row = line.split()
        address, _, port = row[1].partition(":")
        sockets.append(UdpSocket(_host_order(address), int(port, 16), int(row[7]), int(row[9]), int(row[12])))
    return sockets


def parse_snmp(text: str) -> dict[str, int]:
    """Read snmp or netstat, which have a line of names, then one of values: counters by both, as Udp.InErrors."""
    lines = text.splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        prefix, _, rest = names.partition(": ")
        for name, value in zip(rest.split(), values.split()[1:], strict=False):
            found[f"{prefix}.{name}"] = int(value)
    return found


def parse_snmp6(text: str) -> dict[str, int]:
    """Read snmp6, a counter a line."""
    return {row[0]: int(row[1]) for row in map(str.split, text.splitlines())}


def parse_dev(text: str) -> dict[str, dict[str, int]]:
    """Read dev: what each interface counted of what it received, by the interface's name."""
    rows = (line.rpartition(":") for line in text.splitlines()[2:])  # a name may have a colon itself
    return {name.strip(): dict(zip(_RECEIVED, map(int, values.split()), strict=False)) for name, _, values in rows}


def parse_softnet_stat(text: str) -> int:
    """Read softnet_stat: how many packets all processors dropped, as their backlogs were full."""
    return sum(int(line.split()[1], 16) for line in text.splitlines())


def read(name: str) -> str:
    """Return the text of a file of this thread's network namespace; nothing where there is none (no IPv6).

    Raises OSError where it may not be read.
    """
    try:
        return (_HEAD / name).read_text("ascii", "backslashreplace")
    except FileNotFoundError:
        return ""


def owners(inodes: set[int]) -> dict[int, list[tuple[int, str]]]:
    """Return the processes that have these sockets open: their numbers and names, by inode.

    Without CAP_SYS_PTRACE those of other users can't be seen (proc_pid_fd(5)): they are left out.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[tuple[int, str]]] = {}
    if not wanted:
        return found
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            name = (process / "comm").read_text("utf-8", "backslashreplace").removesuffix("\n")
            for link in _open_files(process) & wanted.keys():
                found.setdefault(wanted[link], []).append((int(process.name), name))
    return {inode: sorted(processes) for inode, processes in found.items()}


def _open_files(process: Path) -> set[str]:
    found = set()
    for number in os.listdir(process / "fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(process / "fd" / number))
    return found


def _plain(digits: str) -> str:
    packed = bytes.fromhex(digits.removeprefix("0x"))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _host_order(digits: str) -> str:
    """Return an address printed as 32-bit integers in the order of this machine."""
    words = (int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8))
    return _plain(b"".join(words).hex())
