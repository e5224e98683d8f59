"""The two protocols in which a host reports what it joined: IGMP over IPv4 and MLD over IPv6, in the terms of the rig.

Owns the groups of the tests that capture: each gets one that no other uses, since reports are repeated after their test
has ended. Must not be asked for more than 60,000 of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from wire import Record

# The group records that tell of a change (RFC 3376, 4.2.12; RFC 3810, 5.2.12).
ALLOW, BLOCK = "ALLOW_NEW_SOURCES", "BLOCK_OLD_SOURCES"
TO_INCLUDE, TO_EXCLUDE = "CHANGE_TO_INCLUDE_MODE", "CHANGE_TO_EXCLUDE_MODE"


@dataclass(frozen=True)
class Protocol:
    version: str
    router: str  # tx's address on feed0 from which it may ask
    sources: tuple[str, str, str]  # tx's addresses on feed0
    any: str  # the address that a socket of this family is bound to for all
    force_version: str  # of rx: the sysctl that holds it to an older version on feed0
    older: dict[int, tuple[str, str, str]]  # by that version: what a join is there, and a leave, "" for none
    form: str  # of its groups
    _numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    def __str__(self) -> str:
        return self.version

    def new_group(self) -> str:
        high, low = divmod(next(self._numbers), 250)
        return self.form.format(high, low + 1)

    def record(self, kind: str, group: str, *sources: str) -> Record:
        return Record(self.version, kind, group, frozenset(sources))


IGMP = Protocol(
    version="IGMPv3",
    router="192.0.2.11",
    sources=("192.0.2.11", "192.0.2.12", "192.0.2.13"),
    any="0.0.0.0",
    force_version="/proc/sys/net/ipv4/conf/feed0/force_igmp_version",
    older={1: ("IGMPv1", "Membership Report", ""), 2: ("IGMPv2", "Membership Report", "Leave Group")},
    form="239.196.{}.{}",
)
MLD = Protocol(
    version="MLDv2",
    router="fe80::11",
    sources=("2001:db8::11", "2001:db8::12", "2001:db8::13"),
    any="::",
    force_version="/proc/sys/net/ipv6/conf/feed0/force_mld_version",
    older={1: ("MLDv1", "Multicast Listener Report", "Multicast Listener Done")},
    form="ff15::196:{:x}:{:x}",
)
