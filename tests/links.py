"""The link `feed0` between two hosts of the rig, which goes and comes back; and a receiver that heals.

Owns how it is taken away and made again. Must not wait for what a receiver does: it waits for the kernel alone.
"""

from __future__ import annotations

import time

from rig import AGENTS, DEADLINE, LINKS, RemoteReceiver, Rig

HEALED = AGENTS / "healed.py"
WAYS, PACER = AGENTS / "ways.py", AGENTS / "pacer.py"
PORT = 41_000
RX, OTHER = 10, 77  # the index of rx's feed0, and another one
# Group, and where it comes from.
IPV4, IPV6 = ("239.195.7.1", "192.0.2.11"), ("ff15::195:7:1", "2001:db8::11")
FAR = ("239.195.7.9", "198.51.100.11")  # by feed1, which stays


class Link:
    """The link `feed0` between tx and rx, which can be deleted and made again."""

    def __init__(self, hosts: Rig) -> None:
        self.hosts = hosts

    def delete(self) -> None:
        self.hosts.tx.ip("link del feed0")

    def make(self, index: int = RX, name: str = "feed0", *, up: bool = True) -> int:
        """Make it; what is sent on it arrives from then on, unless rx's end is to stay down. Returns as `set_up`."""
        holder = self.hosts.rx.holder.pid
        self.hosts.tx.ip(
            f"link add feed0 index 20 type veth peer name {name} index {index} netns {holder}",
            "link set feed0 addrgenmode none up",
        )
        self.hosts.rx.ip(f"link set {name} addrgenmode none")
        return self.set_up(name) if up else 0

    def set_up(self, name: str = "feed0") -> int:
        """Set rx's end up; return when that began, in ns of the monotonic clock, which all hosts have."""
        began = time.monotonic_ns()
        self.hosts.rx.ip(f"link set {name} up")
        self.hosts.rx.wait_until_up(name)
        self.hosts.tx.wait_until_up("feed0")
        for host, link in (("tx", "feed0"), ("rx", name)):
            lines = (
                f"address replace {address} dev {link}{' nodad' if ':' in address else ''}"
                for address in LINKS["feed0"][host][1]
            )
            getattr(self.hosts, host).ip(*lines)
        return began

    def again(self, index: int = RX) -> int:
        """Delete it and make it again; return as `set_up`."""
        self.delete()
        return self.make(index)


class Feed(RemoteReceiver):
    """A receiver in an agent that runs agents/healed.py."""

    def do(self, command: str, **arguments: object):
        return self.agent.call(command, name=self._name, **arguments)

    def handle(self):
        """Have it handle what the kernel has told; return whether it was awake for that, and what came of it."""
        return self.do("handle")

    def count(self, what: str, number: int):
        """Have it receive until its stats say so."""
        return self.do("count", what=what, number=number, seconds=DEADLINE / 2)
