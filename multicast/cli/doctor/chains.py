"""Whether a packet gets past a firewall's chains, as far as its rules can be understood.

Owns the order in which rules count: jumps, returns and policies. Must not know how a firewall is listed, nor claim more
than a rule says: behind one that is not understood nothing is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

_DEEPEST = 32  # jumps; both nftables and iptables refuse loops
# What reading a rule can raise that is written as none is known to be: by a later version, by an extension.
UNREADABLE = (AttributeError, LookupError, RecursionError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True)
class Packet:
    """A datagram of a feed, on its way in; None is what is not known of it."""

    group: str
    port: int
    interface: str | None
    source: str | None = None

    @property
    def ipv6(self) -> bool:
        """Whether it is one of IPv6."""
        return ":" in self.group


@dataclass
class Rule:
    """A rule, as it is for one packet.

    - text: how to find it
    - holds: whether all its conditions do; None: one of them can't be judged
    - does: accept, drop, return, jump, goto, pass (it goes on behind it), or unknown
    - target: the chain of a jump or a goto
    - packets: how many it counted, if it counts
    """

    text: str
    holds: bool | None
    does: str
    target: Hashable = None
    packets: int | None = None


@dataclass
class Chain:
    """A chain, as it is for one packet.

    - hooked: whether packets on their way in come to it by themselves; None: that can't be told
    - drops: whether it drops what comes to its end (its policy)
    - listing: the command that shows it
    """

    text: str
    hooked: bool | None = False
    drops: bool = False
    packets: int | None = None
    rules: list[Rule] = field(default_factory=list)
    listing: str = ""


@dataclass(frozen=True)
class Obstacle:
    """What could drop the packet, and the command that lists it.

    - certain: whether every condition on the way to it is understood, and holds
    """

    text: str
    certain: bool
    packets: int | None = None
    listing: str = ""


def obstacles(chains: Mapping[Hashable, Chain]) -> list[Obstacle]:
    """Return the rules and policies that drop the packet, or could, in the order in which it meets them."""
    found: list[Obstacle] = []
    for chain in chains.values():
        if chain.hooked is not False:
            walk = _Walk(chains, found)
            ended = walk.through(chain, certain=chain.hooked is True)
            if chain.drops and not ended:
                sure = chain.hooked is True and not walk.maybe_accepted
                found.append(Obstacle(f"the policy of {chain.text}", sure, chain.packets, chain.listing))
    return found


def certain_first(found: Iterable[Obstacle]) -> list[Obstacle]:
    """Return each once, those that are certain before the others."""
    return sorted(dict.fromkeys(found), key=lambda each: not each.certain)


class _Walk:
    """The packet's way through a base chain and the chains that it jumps to."""

    def __init__(self, chains: Mapping[Hashable, Chain], found: list[Obstacle]) -> None:
        self.chains = chains
        self.found = found
        self.maybe_accepted = False  # by a rule behind us: then nothing after it is certain
        self.depth = 0

    def through(self, chain: Chain, *, certain: bool) -> bool:
        """Return whether it certainly ends in here, accepted or dropped.

        - certain: whether the packet surely comes here, unless it was accepted before
        """
        self.depth += 1
        ended = self.depth <= _DEEPEST and self._rules(chain, certain)
        self.depth -= 1
        return ended

    def _rules(self, chain: Chain, certain: bool) -> bool:
        maybe_left = False  # by a return that may hold
        for rule in chain.rules:
            if rule.holds is False:
                continue
            here = rule.holds is True and certain and not maybe_left
            final = False
            if rule.does == "drop":
                sure = here and not self.maybe_accepted
                self.found.append(Obstacle(rule.text, sure, rule.packets, chain.listing))
                final = True  # one that only may drop it leaves what is behind it as certain as it was
            elif rule.does == "accept":
                self.maybe_accepted |= not here
                final = True
            elif rule.does == "unknown" or (rule.does in ("jump", "goto") and rule.target not in self.chains):
                self.maybe_accepted = True
            elif rule.does in ("jump", "goto"):
                before = self.maybe_accepted
                final = self.through(self.chains[rule.target], certain=here)
                # What ends in a chain that is only perhaps jumped to is perhaps accepted there.
                self.maybe_accepted = self.maybe_accepted or before or (final and not here)
            if rule.does == "return" or (rule.does == "goto" and not final):
                if rule.holds:
                    return False
                maybe_left = True
            elif final and rule.holds:
                return not maybe_left
        return False
