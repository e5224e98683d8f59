"""Streams of numbered datagrams between the rig's hosts: the addresses of each family, and sending without a loss.

Owns the pace: the next datagrams are sent when the receivers have said that they have the last ones. Must not judge.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rig import DEADLINE, LINKS, Agent, RemoteReceiver

PORT = 40_000
# What any user gets; the kernel charges a small datagram with 768 bytes or so, out of twice the buffer (socket(7)).
LIMIT = Path("/proc/sys/net/core/rmem_max")  # not to be seen in a container: as Linux comes, 212,992
RECEIVE_BUFFER = min(1_000_000, int(LIMIT.read_text()) if LIMIT.exists() else 212_992)
AT_ONCE = RECEIVE_BUFFER * 2 // 1536


@dataclass(frozen=True)
class Family:
    version: int
    groups: tuple[str, str, str, str]

    def __str__(self) -> str:
        return f"IPv{self.version}"

    def addresses(self, link: str, host: str) -> list[str]:
        """A host's addresses on a link that are not of that link alone."""
        found = [ipaddress.ip_interface(each).ip for each in LINKS[link][host][1]]
        return [str(each) for each in found if each.version == self.version and not each.is_link_local]

    @property
    def own(self) -> str:
        """The address of rx on feed0."""
        return self.addresses("feed0", "rx")[0]

    @property
    def sources(self) -> list[str]:
        """The addresses of tx on feed0."""
        return self.addresses("feed0", "tx")

    @property
    def far(self) -> str:
        """The address of tx on feed1."""
        return self.addresses("feed1", "tx")[0]


# Of the ranges for source-specific multicast (RFC 4607, 1), in which Linux lets anybody join all sources, too.
IPV4 = Family(4, ("232.195.0.1", "232.195.0.2", "232.195.0.3", "232.195.0.4"))
IPV6 = Family(6, ("ff35::8195:1", "ff35::8195:2", "ff35::8195:3", "ff35::8195:4"))
of_each_family = pytest.mark.parametrize("family", [IPV4, IPV6], ids=str)


def size(package: Any, native: int) -> int:
    """How many datagrams a proof takes: so many, or on the stdlib backend, which has a call for each, a tenth."""
    return native if package.BACKEND == "native" else native // 10


def complete(count: int) -> dict[str, int]:
    """The tally of a stream of which the first `count` datagrams came, each once and in order."""
    return {"came": count, "last": count - 1, "missing": 0, "not in order": 0}


def send_paced(
    tx: Agent, streams: list[list[Any]], count: int, receivers: dict[RemoteReceiver, list[int]], first: int = 0
) -> list[dict[str, Any]]:
    """Send this many datagrams of each stream, no more at once than a receiver can have to queue: the tallies.

    - streams: lists of a stream's number, the address sent from and to, and where wanted an interface and a TTL
    - receivers: of each, the streams that it has to get; what else it gets is in its tally

    One receiver of each agent waits already when datagrams are sent.
    """
    each = max(1, AT_ONCE // len(streams))
    told: dict[RemoteReceiver, Any] = {}
    for start in range(first, first + count, each):
        now = min(each, first + count - start)
        asked = {
            receiver: {"last": dict.fromkeys(own, start + now - 1), "seconds": DEADLINE / 2}
            for receiver, own in receivers.items()
        }
        waiting = {receiver.agent: receiver for receiver in receivers}
        answers = {receiver: receiver.begin("tally", **asked[receiver]) for receiver in waiting.values()}
        tx.call("send_numbered", port=PORT, streams=streams, first=start, count=now)
        told = {receiver: answer() for receiver, answer in answers.items()}
        told |= {receiver: receiver.call("tally", **asked[receiver]) for receiver in receivers if receiver not in told}
    return [told[receiver] for receiver in receivers]
