"""`multicast interfaces`: this host's interfaces, and the groups that they are in.

Owns what is shown of them. Must not read the system: that is in `_interfaces` and `_proc_net`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .. import _interfaces, _proc_net
from .arguments import add_json
from .output import Output

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from .. import Interface

SUMMARY = "this host's interfaces, the groups that they are in, and who is bound to those"
DESCRIPTION = """\
Lists the network interfaces of this host: addresses, flags and MTU; below, on
Linux, the groups that they are in. Users are the sockets that joined a group,
and the kernel, which counts as one. Which sockets they are the kernel tells
nobody. Shown are the processes with a socket that is bound to the group's
address, on whichever interface it joined; one bound to 0.0.0.0 or :: is not
found. Exit code 1: the interfaces can't be listed."""
EPILOG = """\
examples:
  multicast interfaces                  two tables
  sudo multicast interfaces             with the processes of other users, too
  multicast interfaces --json           one object an interface"""

# netdevice(7)
_FLAGS = {
    0x1: "UP",
    0x10000: "LOWER_UP",
    0x1000: "MULTICAST",
    0x8: "LOOPBACK",
    0x10: "POINTOPOINT",
    0x80: "NOARP",
    0x100: "PROMISC",
    0x200: "ALLMULTI",
    0x400: "MASTER",
    0x800: "SLAVE",
    0x20000: "DORMANT",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Print them."""
    output = Output(as_json=given.json)
    linux = sys.platform == "linux"
    links = _interfaces.link_details() if linux else {}
    groups = _groups() if linux else {}
    found = []
    for each in _interfaces.interfaces():
        flags, mtu, _ = links.get(each.index, (None, None, None))
        found.append(
            {
                "index": each.index,
                "name": each.name,
                "addresses": list(each.addresses),
                "flags": _portable(each) if flags is None else [name for bit, name in _FLAGS.items() if flags & bit],
                "mtu_bytes": mtu,
                "groups": groups.get(each.index, []) if linux else None,
            }
        )
    if given.json:
        for values in found:
            output.emit(values)
    else:
        _show(output, found)
    return 0


def _portable(interface: Interface) -> list[str]:
    return [name.upper() for name in ("up", "multicast", "loopback") if getattr(interface, name)]


def _groups() -> dict[int, list[dict[str, Any]]]:
    """Return the groups by interface, as they are in JSON."""
    groups, _ = _proc_net.parse_igmp(_proc_net.read("igmp"))
    groups += _proc_net.parse_igmp6(_proc_net.read("igmp6"))
    sources = [each for name in ("mcfilter", "mcfilter6") for each in _proc_net.parse_mcfilter(_proc_net.read(name))]
    joined = {each.group for each in groups}
    sockets = [each for name in ("udp", "udp6") for each in _proc_net.parse_udp(_proc_net.read(name))]
    bound = [each for each in sockets if each.address in joined]
    owners = _proc_net.owners({each.inode for each in bound})
    unseen: list[tuple[int | None, str | None]] = [(None, None)]
    found: dict[int, list[dict[str, Any]]] = {}
    for index, group, users in groups:
        mine = [each for each in sources if (each.interface, each.group) == (index, group)]
        found.setdefault(index, []).append(
            {
                "group": group,
                "users": users,
                "included_sources": [each.source for each in mine if each.included],
                "excluded_sources": [each.source for each in mine if each.excluded],
                "bound": [
                    {"port": each.port, "uid": each.uid, "pid": pid, "process": process}
                    for each in bound
                    if each.address == group
                    for pid, process in owners.get(each.inode, unseen)
                ],
            }
        )
    return found


def _show(output: Output, found: list[dict[str, Any]]) -> None:
    rows = []
    for each in found:
        flags = " ".join(each["flags"])
        mtu = "-" if each["mtu_bytes"] is None else str(each["mtu_bytes"])
        first, *more = each["addresses"] or ["-"]
        rows.append([str(each["index"]), each["name"], mtu, first, flags or "-"])
        rows += [["", "", "", address, ""] for address in more]
    output.table(["index", "name", "MTU", "address", "flags"], rows, numbers=[0, 2])
    memberships = [(each["name"], group) for each in found for group in each["groups"] or []]
    if memberships:
        output.say()
        output.table(
            ["interface", "group", "users", "sources", "bound to the group"],
            [
                [name, group["group"], str(group["users"]), _sources(group), _bound(group)]
                for name, group in memberships
            ],
            numbers=[2],
        )


def _sources(group: dict[str, Any]) -> str:
    told = [("only ", group["included_sources"]), ("not ", group["excluded_sources"])]
    return "; ".join(how + ", ".join(sources) for how, sources in told if sources) or "any"


def _bound(group: dict[str, Any]) -> str:
    return ", ".join(
        f"port {each['port']}: "
        + (f"of user {each['uid']}" if each["pid"] is None else f"{each['process']} ({each['pid']})")
        for each in group["bound"]
    )
