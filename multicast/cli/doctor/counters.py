"""The counters that tell where datagrams went: of UDP and IP, of the processors' backlogs, of the network card.

Owns which ones. Most are of the whole host (its network namespace), so that they hint, and prove nothing.
"""

from __future__ import annotations

import contextlib

from ... import _ethtool, _proc_net

REVERSE_PATH = "TcpExt.IPReversePathFilter"
OF_UDP = ("RcvbufErrors", "InErrors", "InCsumErrors", "IgnoredMulti", "MemErrors")
GOOD = ("IpExt.InMcastPkts", "Ip6InMcastPkts", "Udp.IgnoredMulti", "Udp6IgnoredMulti")
# Words in the names that drivers give: rx_missed_errors, rx_out_of_buffer, rx_queue_0_drops, port.rx_dropped.
_BAD = ("drop", "discard", "miss", "err", "fifo", "overrun", "buf", "fail")


def read(interface: str | None) -> dict[str, int]:
    """Return them by name; those that can't be read are left out.

    - interface: whose card is asked, too
    """
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        every = _proc_net.parse_snmp(_proc_net.read("snmp")) | _proc_net.parse_snmp(_proc_net.read("netstat"))
        every |= _proc_net.parse_snmp6(_proc_net.read("snmp6"))
        names = [f"{protocol}{name}" for protocol in ("Udp.", "Udp6") for name in OF_UDP]
        found = {name: every[name] for name in (*names, REVERSE_PATH, *GOOD[:2]) if name in every}
    with contextlib.suppress(OSError):
        found["backlog dropped"] = _proc_net.parse_softnet_stat(_proc_net.read("softnet_stat"))
    return found | ({} if interface is None else _card(interface))


def _card(name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        row = _proc_net.parse_dev(_proc_net.read("dev")).get(name, {})
        found = {f"{name} {what}": row[what] for what in ("dropped", "errors", "fifo", "frame") if what in row}
    with contextlib.suppress(OSError):
        for what, value in _ethtool.statistics(name).items():
            if "tx" not in what.lower() and any(word in what.lower() for word in _BAD):
                found[f"{name} {what}"] = value
    return found
