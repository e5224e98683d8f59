"""Links deleted and made again and again under load: the data is back, and the kernel has what was declared.

Owns receivers that wait in threads of their own while pacer.py sends without a pause. What is late or lost is told by
the numbers and the times that the sender put in: the clock of the test, or of a thread that came late, has no say.
"""

from __future__ import annotations

import ipaddress
import itertools
import statistics
import sys
import time

import pytest
from links import PACER, PORT, RX, WAYS
from rig import DEADLINE

pytest_plugins = ["rig_fixtures", "healing_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")

SECOND = 1_000_000_000  # ns
PACE = 0.002  # seconds
CYCLES = 50
OWN4, OTHER4, FAR4 = "192.0.2.11", "192.0.2.12", "198.51.100.11"
OWN6, OTHER6, FAR6 = "2001:db8::11", "2001:db8::12", "2001:db8:0:1::11"
ANY4, SSM4, FULL4, FULL_SSM4, LOAD4 = (f"239.195.8.{n}" for n in (1, 3, 20, 40, 9))
ANY6, SSM6, LOAD6 = (f"ff15::195:8:{n}" for n in (1, 3, 9))
# What is sent, from where. Each feed has the number of its place here.
SENT = [
    *((ANY4, OWN4), (SSM4, OWN4), (SSM4, OTHER4), (FULL4, OWN4), (FULL_SSM4, OWN4), (FULL_SSM4, OTHER4)),
    *((ANY6, OWN6), (SSM6, OWN6), (SSM6, OTHER6)),
    *[(LOAD4, FAR4)] * 5,
    (LOAD6, FAR6),
]
LAST = {"239.195.8.255": OTHER4, "ff15::195:8:ffff": OTHER6}
LOAD = {number for number, (group, _) in enumerate(SENT) if group in (LOAD4, LOAD6)}  # by the link that stays


def number(group: str, source: str) -> int:
    return SENT.index((group, source))


# By name: the groups that it is opened with, from which source, what it joins beside, what has to come by feed0.
RECEIVERS = {
    "IPv4, any source": ([ANY4, "239.195.8.2"], None, [[LOAD4, "feed1"]], {number(ANY4, OWN4)}),
    "IPv4, one source": ([SSM4, "239.195.8.4"], OWN4, [[LOAD4, "feed1"]], {number(SSM4, OWN4)}),
    "IPv6, any source": ([ANY6, "ff15::195:8:2"], None, [[LOAD6, "feed1"]], {number(ANY6, OWN6)}),
    "IPv6, one source": ([SSM6, "ff15::195:8:4"], OWN6, [[LOAD6, "feed1"]], {number(SSM6, OWN6)}),
    "IPv4, 20 memberships": (
        [f"239.195.8.{n}" for n in range(20, 36)],
        None,
        [[LOAD4, "feed1"], *([f"239.195.8.{n}", "feed0", OWN4] for n in range(40, 43))],
        {number(FULL4, OWN4), number(FULL_SSM4, OWN4)},
    ),
}


def kernel(hosts, agent) -> set[tuple[str, ...]]:
    """What the kernel has of the groups of these tests: (interface, group, users) and (interface, group, source, ...).

    It only lists the sources of an interface where the group that was joined last has one (igmp_mcf_get_first of
    net/ipv4/igmp.c, igmp6_mcf_get_first of net/ipv6/mcast.c): so such a one is joined here, and left out.
    """
    process = agent(hosts.rx)
    last = [process.receiver(group, PORT, interface="feed0", source=source) for group, source in LAST.items()]
    found, interface = set(), ""
    for line in hosts.rx.read("/proc/net/igmp").splitlines()[1:]:
        words = line.split()
        if line[0].isspace():  # the number that the group is in this machine's order
            found.add((interface, text(int(words[0], 16).to_bytes(4, sys.byteorder)), words[1]))
        else:
            interface = words[1]
    for line in hosts.rx.read("/proc/net/igmp6").splitlines():
        _, at, group, count, *_ = line.split()
        found.add((at, text(bytes.fromhex(group)), count))
    for path in ("mcfilter", "mcfilter6"):
        for line in hosts.rx.read(f"/proc/net/{path}").splitlines()[1:]:
            _, at, group, source, *counts = line.split()
            group, source = (text(bytes.fromhex(each.removeprefix("0x"))) for each in (group, source))
            found.add((at, group, source, *counts))
    for each in last:
        each.close()
    assert len([words for words in found if words[1] in LAST]) == 2 * len(LAST)
    return {words for words in found if words[1].startswith(("239.195.8.", "ff15::195:8:")) and words[1] not in LAST}


def text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


class Trial:
    """All receivers, with what is sent to them, while the link goes and comes."""

    def __init__(self, hosts, agent, link, **options) -> None:
        self.hosts, self.link = hosts, link
        hosts.rx.write("/proc/sys/net/ipv4/igmp_max_memberships", "20")
        self.process, self.pacer = agent(hosts.rx, script=WAYS), agent(hosts.tx, script=PACER)
        for name, (groups, source, joins, _) in RECEIVERS.items():
            arguments = {"interface": "feed0", "source": source, "receive_buffer": 1 << 20, **options}
            self.process.call("open", name=name, way="blocked", group=groups, port=PORT, options=arguments, joins=joins)
        self.pacer.call("start", wanted=SENT, port=PORT, seconds=PACE)
        self.came = {name: [] for name in RECEIVERS}  # (feed, number, sent at)
        for name, (_, _, _, wanted) in RECEIVERS.items():
            self.wait(name, wanted, 0)

    def wait(self, name: str, wanted: set[int], stamp: int) -> list[list[int]]:
        """Wait until of each of these feeds there is something that was sent since then; return all that came."""
        came = self.process.call("since", name=name, numbers=sorted(wanted), stamp=stamp, seconds=DEADLINE / 2)
        self.came[name] += came
        return came

    def state(self, name: str) -> dict[str, object]:
        return self.process.call("state", name=name)


def end_well(trial: Trial, ended: object) -> None:
    for name in RECEIVERS:
        assert trial.process.call("close", name=name)[:2] == ended


@pytest.mark.parametrize(
    "indexes",
    [
        pytest.param([RX], id="the same index"),
        pytest.param(range(1000, 1060), id="a new index"),
    ],
)
def test_the_data_is_back_and_the_kernel_has_what_was_declared(multicast, hosts, agent, link, tell, indexes):
    """50 times: more than igmp_max_memberships, 20, would allow, were anything left behind; and with 20 in use."""
    trial = Trial(hosts, agent, link)
    before = {name: trial.state(name)["memberships"] for name in RECEIVERS}
    assert len(before["IPv4, 20 memberships"]) == 20
    declared, descriptors = kernel(hosts, agent), trial.process.call("descriptors")
    assert len(declared) > 30
    parts = {(name, feed): [] for name, (*_, wanted) in RECEIVERS.items() for feed in wanted}
    for index in itertools.islice(itertools.cycle(indexes), CYCLES):
        deleted = time.monotonic_ns()
        link.delete()
        began = link.make(index)
        for name, (*_, wanted) in RECEIVERS.items():
            trial.wait(name, wanted | LOAD & {feed for feed, _, _ in trial.came[name]}, began)
            for feed in wanted:
                parts[name, feed].append((deleted, began))
    # How long after rx's end of the link was set up the first datagram was sent that came: most of it is the time that
    # the kernel takes to find a carrier, and ip(8) to give tx its addresses.
    late, lost = [], 0
    for (name, feed), times in parts.items():
        stamps = [(sent, n) for each, n, sent in trial.came[name] if each == feed]
        assert stamps == sorted(stamps)
        ends = [deleted for deleted, _ in times[1:]] + [time.monotonic_ns()]
        for (_, began), end in zip(times, ends, strict=True):
            part = [(sent, n) for sent, n in stamps if began <= sent < end]
            late.append(part[0][0] - began)
            lost += part[-1][1] - part[0][1] + 1 - len(part)
    assert statistics.median(late) < SECOND
    assert max(late) < 10 * SECOND  # a machine may be busy
    assert lost == 0  # once it was back
    for name, (groups, _, _, wanted) in RECEIVERS.items():
        state = trial.state(name)
        assert (state["links_lost"], state["rejoins"], state["drops"]) == (CYCLES, CYCLES, 0)
        moved = [row | {"index": index if row["interface"] == "feed0" else row["index"]} for row in before[name]]
        assert sorted(map(str, state["memberships"])) == sorted(map(str, moved))
        assert {feed for feed, _, _ in trial.came[name]} <= wanted | LOAD  # nothing of the other source
        assert len(groups) >= 2  # so it is not bound to a group, which would keep others away
    assert kernel(hosts, agent) == declared
    assert trial.process.call("descriptors") == descriptors
    log = trial.process.call("log")
    assert len(log) == 2 * CYCLES * len(RECEIVERS)
    assert all("has gone" in line or line.startswith("joined again on feed0 ") for line in log)
    end_well(trial, ["OSError", 9])
    shown = f"{statistics.median(late) / SECOND:.3f} s after the link, at most {max(late) / SECOND:.3f} s"
    tell(f"{multicast.BACKEND}: {len(late)} times the data is back {shown}")


def test_without_healing_nothing_is_back(hosts, agent, link):
    """The very same receivers: only what is sent by the link that stayed still comes, long after the other is up."""
    trial = Trial(hosts, agent, link, self_healing=False)
    link.delete()
    began = link.make()
    later = time.monotonic_ns() + SECOND
    for name, (groups, _, _, wanted) in RECEIVERS.items():
        load = number(LOAD6, FAR6) if ":" in groups[0] else number(LOAD4, FAR4)
        came = trial.wait(name, {load}, later)
        assert not [feed for feed, _, sent in came if feed in wanted and sent >= began]
        assert (trial.state(name)["links_lost"], trial.state(name)["rejoins"]) == (0, 0)
    assert trial.process.call("log") == []
    end_well(trial, ["OSError", 9])
