"""This package and multicast_expert, another one for Python, hear each other: from host to host, both ways.

Owns an agent of each in tx and in rx. Must not wait to see that something does not come: what is sent after it does.
"""

from __future__ import annotations

import sys

import pytest
from protocols import IGMP, MLD
from rig import AGENTS, DEADLINE, AgentError, Worker

pytest_plugins = ["rig_fixtures", "report_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_000


class Expert(Worker):
    """A process in a host with multicast_expert, on feed0."""

    def __init__(self, host) -> None:
        super().__init__(host, AGENTS / "expert.py")
        assert self.said == "multicast_expert"

    def receiver(self, *groups: str, sources: list[str] | None = None) -> None:
        self.call("open", name="feed", groups=groups, port=PORT, iface="feed0", sources=sources)

    def until(self, last: str) -> list[str]:
        """Receive until this payload comes; return all that came, in order."""
        return self.call("until", name="feed", last=last, seconds=DEADLINE / 2)

    def sender(self, *groups: str) -> str:
        """Open a sender to these groups; return the address that it chose to send from."""
        return self.call("sender", name="feed", groups=groups, iface="feed0")

    def send(self, *datagrams: tuple[str, str]) -> None:
        """Send datagrams in this order: to which group, and the payload."""
        self.call("send", name="feed", port=PORT, datagrams=datagrams)


@pytest.fixture
def expert():
    """Start agents with multicast_expert; they have to have ended well after the test."""
    started = []

    def start(host) -> Expert:
        started.append(Expert(host))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def groups(protocol) -> list[str]:
    return [protocol.new_group() for _ in range(3)]


# Theirs hears ours -------------------------------------------------------------------------------------------------


def test_its_receiver_gets_what_our_sender_sends(rig, agent, expert, protocol, groups):
    *joined, other = groups
    feed, tx, source = expert(rig.rx), agent(rig.tx), protocol.sources[0]
    feed.receiver(*joined)
    tx.send(PORT, *((source, group, group) for group in [*joined, other]), (source, joined[0], "end"))
    # Over IPv6 it has a socket for each group, of which any may be the first that it reads.
    came = feed.until("end")
    assert other not in came
    assert [each for each in came if each != joined[1]] == [joined[0], "end"]
    if joined[1] not in came:
        assert feed.until(joined[1]) == [joined[1]]


def test_its_receiver_of_a_source_gets_that_of_our_senders_alone(rig, agent, expert):
    group, (listed, *unlisted) = IGMP.new_group(), IGMP.sources
    feed, tx = expert(rig.rx), agent(rig.tx)
    feed.receiver(group, sources=[listed])
    sent = [(unlisted[0], "no"), (listed, "yes"), (unlisted[1], "no"), (listed, "end")]
    tx.send(PORT, *((source, group, payload) for source, payload in sent))
    assert feed.until("end") == ["yes", "end"]


def test_it_has_no_receiver_of_a_source_over_ipv6(rig, expert):
    """Should it have one some day, the test above can be for both families."""
    with pytest.raises(AgentError, match="cannot be used with IPv6") as refused:
        expert(rig.rx).receiver(MLD.new_group(), sources=[MLD.sources[0]])
    assert refused.value.kind == "MulticastExpertError"


# Ours hears theirs -------------------------------------------------------------------------------------------------


def test_our_receiver_gets_what_its_sender_sends(rig, agent, expert, groups):
    joined = groups[:2]
    feed, tx = agent(rig.rx).receiver(joined, PORT, interface="feed0"), expert(rig.tx)
    tx.sender(*groups)
    tx.send(*((group, group) for group in groups), (joined[0], "end"))
    assert feed.until("end") == [*joined, "end"]


def test_our_receiver_of_a_source_gets_that_of_its_senders_alone(rig, agent, expert, protocol, group):
    tx, others = expert(rig.tx), agent(rig.tx)
    listed = tx.sender(group)
    unlisted = next(each for each in protocol.sources if each != listed)
    feed = agent(rig.rx).receiver(group, PORT, interface="feed0", source=listed)
    others.send(PORT, (unlisted, group, "no"))
    tx.send((group, "yes"))
    others.send(PORT, (unlisted, group, "no"))
    tx.send((group, "end"))
    assert feed.until("end") == ["yes", "end"]


# Side by side ------------------------------------------------------------------------------------------------------


def test_receivers_of_both_share_a_group_and_a_port(rig, agent, expert, protocol, group):
    """Whoever of the two is there first, the other can come; and each gets a copy, whoever sends."""
    rx, theirs, tx, their_tx = agent(rig.rx), expert(rig.rx), agent(rig.tx), expert(rig.tx)
    first = rx.receiver(group, PORT, interface="feed0")
    theirs.receiver(group)
    last = rx.receiver(group, PORT, interface="feed0")
    tx.send(PORT, (protocol.sources[0], group, "ours"))
    their_tx.sender(group)
    their_tx.send((group, "theirs"))
    assert [each.until("theirs") for each in (first, theirs, last)] == [["ours", "theirs"]] * 3
