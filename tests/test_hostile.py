"""Hostile datagrams, put on the wire as they are: nothing crashes, and each ends in exactly one column of the ledger.

Owns the ledger: what the receiver counted, what other sockets got, and the counters of the host's own IP and UDP. Must
not be lenient: of every kind alone, and of all of them in a mix, each column is known beforehand.

    MULTICAST_HOSTILE_SEED=1234 python3 dev.py test tests/test_hostile.py

generates the datagrams of that run again which printed this seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import random
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from chance import COLUMNS, Case, Delivered, Place
from frames import Packet, whole
from hostile import WAITING, phases
from rig import DEADLINE, LINKS, Agent, Host, RemoteReceiver, Rig
from streams import IPV4, PORT, RECEIVE_BUFFER, Family, of_each_family, size

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

COUNT = 50_000  # in both families and all variants together
SEED = int(os.environ.get("MULTICAST_HOSTILE_SEED") or random.SystemRandom().randrange(2**32))
AT_ONCE = 300  # frames, fewer than a link's queue takes (net.core.netdev_max_backlog: 1,000)
RECEIVED_ON = LINKS["feed0"]["rx"][0]


# The ledger --------------------------------------------------------------------------------------------------------


def ip_columns(of: Counter[str], version: int) -> Counter[str]:
    """What IP of this version kept to itself, and what it told UDP that is not for a socket."""
    ip, ip_more, udp = {4: ("Ip", "IpExt", "Udp"), 6: ("Ip6", "Ip6", "Udp6")}[version]
    assert of[f"{udp}RcvbufErrors"] == of[f"{ip}InDiscards"] == 0, "more was sent than there was room for"
    found = Counter(
        {
            "length": of[f"{udp}InErrors"] - of[f"{udp}InCsumErrors"],
            "checksum": of[f"{udp}InCsumErrors"],
            "no port": of[f"{udp}NoPorts"],
            "ignored": of[f"{udp}IgnoredMulti"],
            "headers": of[f"{ip}InHdrErrors"] + of[f"{ip}InAddrErrors"] + of[f"{ip_more}InTruncatedPkts"],
            "protocol": of[f"{ip}InUnknownProtos"],
            "fragments": of[f"{ip}ReasmFails"],
        }
    )
    handled = sum(of[f"{udp}{name}"] for name in ("InDatagrams", "InErrors", "NoPorts", "IgnoredMulti"))
    found["empty"] = of[f"{ip}InDelivers"] - handled
    whole_packets = of[f"{ip}InReceives"] - of[f"{ip}ReasmReqds"]
    never_in_parts = of[f"{ip}InDelivers"] - of[f"{ip}ReasmOKs"]
    found["refused"] = whole_packets - never_in_parts - found["headers"] - found["protocol"]
    return found


class Ledger:
    """Takes the books of rx before something is injected, and tells by column what became of it."""

    def __init__(self, rx: Agent, feed: RemoteReceiver, other: RemoteReceiver) -> None:
        self._rx, self._feed, self._other = rx, feed, other
        self._before = self._books()

    def _books(self) -> dict[str, Counter[str]]:
        return {
            "kernel": Counter(self._rx.call("counters")),
            "feed": self._counts(self._feed),
            "other": self._counts(self._other),
        }

    @staticmethod
    def _counts(receiver) -> Counter[str]:
        return Counter({name: count for name, count in receiver.stats().items() if count is not None})

    def since(self, frames: int, ends: Counter[str], refused_fragments: int = 0) -> Counter[str]:
        """What became of so many frames, beside the markers that each of the receivers got.

        refused_fragments: how many are counted as headers and, before that, as requests to reassemble
        """
        now = self._books()
        for book, before in self._before.items():
            now[book].subtract(before)
        feed, other, kernel = now["feed"], now["other"], now["kernel"]
        found = Counter(
            delivered=feed["datagrams"] - ends["feed"],
            foreign=feed["foreign"],
            drops=feed["drops"],
            others=other["datagrams"] - ends["other"],
        )
        found["link"] = frames + ends.total() - kernel["IpInReceives"] - kernel["Ip6InReceives"]
        for version in (4, 6):
            found.update(ip_columns(kernel, version))
        found["refused"] += refused_fragments
        found["checksum"] -= found["drops"]  # where there was one, the socket has counted it, too
        assert kernel["waiting"] == feed["control_truncated"] == other["foreign"] == other["drops"] == 0
        handed = kernel["UdpInDatagrams"] + kernel["Udp6InDatagrams"]
        have = feed["datagrams"] + feed["foreign"] + other["datagrams"]
        assert handed == have, f"UDP handed {handed} datagrams to sockets, which have {have}"
        return found


# Injecting ---------------------------------------------------------------------------------------------------------


def place_of(rx: Host, family: Family, groups: int) -> Place:
    told = json.loads(rx.run("ip", "-json", "link", "show", "dev", "feed0"))[0]
    *joined, beside, unjoined = family.groups
    return Place(
        version=family.version,
        port=PORT,
        sources=tuple(family.sources),
        own=family.own,
        joined=tuple(joined[:groups]),
        beside=beside,
        unjoined=unjoined,
        mac=bytes.fromhex(told["address"].replace(":", "")),
    )


def marker(place: Place, group: str, payload: bytes) -> bytes:
    """A frame of a datagram that is in order."""
    source, destination = ipaddress.ip_address(place.sources[0]), ipaddress.ip_address(group)
    return whole(Packet(source, destination, 1, place.port, payload, ttl=1, tos=0))[0]


class Injection:
    """Puts cases on the wire in bursts; what a receiver has not taken yet is never more than it has room for.

    A marker after each burst shows that all before it is there, or is nowhere.
    """

    END = bytes(range(16))

    def __init__(self, tx: Agent, feed: RemoteReceiver, other: RemoteReceiver, place: Place, path: Path) -> None:
        self._tx, self._feed, self._other, self._path = tx, feed, other, path
        self._ends = [("feed0", marker(place, group, self.END)) for group in (place.joined[0], place.beside)]

    def load(self, cases: list[Case]) -> int:
        """Have tx read what is to be injected; return how many frames."""
        frames = [(each.link, frame) for each in cases for frame in each.frames]
        with self._path.open("wb") as file:
            for link, frame in [*self._ends, *frames]:
                file.write(struct.pack("!BI", link == "feed1", len(frame)) + frame)
        self._tx.call("load", path=str(self._path), links=["feed0", "feed1"])
        self._path.unlink()
        return len(frames)

    def inject(self, first: int, count: int) -> None:
        """Put these of the frames loaded on the wire."""
        self._tx.call("inject", first=len(self._ends) + first, count=count)

    def put(self, cases: list[Case]) -> tuple[list[dict[str, object]], int, Counter[str]]:
        """Inject cases: return a row of each datagram delivered, and how many frames and markers went."""
        frames = self.load(cases)
        rows: list[dict[str, object]] = []
        bursts = 0
        for first, count in self._bursts(cases):
            self.inject(first, count)
            self._tx.call("inject", first=0, count=len(self._ends))
            rows += self._feed.call("rows", end=self.END.hex(), seconds=DEADLINE / 2)
            self._other.call("rows", end=self.END.hex(), seconds=DEADLINE / 2)
            bursts += 1
        return rows, frames, Counter(feed=bursts, other=bursts)

    def _bursts(self, cases: list[Case]):
        first = count = charged = 0
        for each in cases:
            count += len(each.frames)
            charged += sum(2 * len(frame) + 1024 for frame in each.frames)  # more than the kernel does
            if count >= AT_ONCE or charged >= RECEIVE_BUFFER:
                yield first, count
                first, count, charged = first + count, 0, 0
        yield first, count


def row_of(delivered: Delivered, datagram_size: int) -> dict[str, object]:
    """What the receiver has to show of a datagram."""
    payload = delivered.payload[:datagram_size]
    return {
        "payload": hashlib.blake2b(payload, digest_size=8).hexdigest(),
        "length": len(payload),
        "real length": len(delivered.payload),
        "truncated": len(payload) < len(delivered.payload),
        "source": [delivered.source, delivered.source_port],
        "destination": delivered.destination,
        "interface": RECEIVED_ON,
        "ttl": delivered.ttl,
        "tos": delivered.tos,
        "stamped": True,
    }


@contextlib.contextmanager
def given_up_soon(host: Host, rx: Agent):
    """Have the host wait for fragments for a second at most, and at the end, until it waits for none any more."""
    names = ("ipv4/ipfrag_time", "ipv6/ip6frag_time")
    usual = [host.read(f"/proc/sys/net/{name}").strip() for name in names]
    for name in names:
        host.run("sh", "-c", f"echo 1 > /proc/sys/net/{name}")
    yield
    for name, seconds in zip(names, usual, strict=True):
        host.run("sh", "-c", f"echo {seconds} > /proc/sys/net/{name}")
    deadline = time.monotonic() + DEADLINE
    while waiting := rx.call("counters")["waiting"]:
        assert time.monotonic() < deadline, f"{waiting} datagrams still wait for fragments"
        time.sleep(0.05)  # the kernel counts them, it does not tell when


@dataclass(frozen=True)
class Variant:
    """A way to receive: how many groups, how much of each datagram, and whether trains are taken."""

    name: str
    groups: int = 2
    datagram_size: int = 65_535
    gro: bool = False

    def __str__(self) -> str:
        return self.name

    def column(self, case: Case) -> str:
        """Return where a case ends: from a socket that is bound to its group the kernel keeps all else."""
        if self.groups == 1 and case.column == "foreign":
            return "ignored" if case.kind == "broadcast" else "no port"
        return case.column


VARIANTS = [
    Variant("whole"),
    Variant("512 bytes of each", datagram_size=512),
    Variant("512 bytes of each and trains", datagram_size=512, gro=True),
    Variant("of one group", groups=1, datagram_size=2048),
]


@pytest.fixture(scope="module")
def quiet_rig(rig):  # rig: which skips where none can be made
    """Hosts of which tx says nothing of its own: no more IPv6 there, so no reports and no solicitations to routers.

    What is injected needs none of it, and the books of rx have nothing but that.
    """
    with Rig() as made:
        made.tx.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
        yield made


class Bench:
    """The agents, the receivers, and what is put between them."""

    def __init__(self, package, rig, agent, family: Family, variant: Variant, directory: Path) -> None:
        self.host = rig.rx
        self.place = place_of(rig.rx, family, variant.groups)
        self.rx, self.tx = agent(rig.rx, "injector"), agent(rig.tx, "injector")
        options = {"interface": "feed0", "receive_buffer": RECEIVE_BUFFER, "datagram_size": variant.datagram_size}
        options |= {"columns": list(package.COLUMNS), "timestamps": "software", "gro": variant.gro}
        groups = list(self.place.joined) if variant.groups > 1 else self.place.joined[0]
        self.feed = self.rx.receiver(groups, PORT, batch_size=16, **options)
        self.other = self.rx.receiver(self.place.beside, PORT, **options)
        self.injection = Injection(self.tx, self.feed, self.other, self.place, directory / "frames")

    def ledger(self) -> Ledger:
        return Ledger(self.rx, self.feed, self.other)


@of_each_family
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_each_hostile_datagram_ends_in_one_column(multicast, quiet_rig, agent, family, variant, tmp_path):
    """50,000 datagrams, in the variants of this test together, on the stdlib backend 5,000."""
    print(f"MULTICAST_HOSTILE_SEED={SEED}")
    bench = Bench(multicast, quiet_rig, agent, family, variant, tmp_path)
    total: Counter[str] = Counter()
    count = size(multicast, COUNT) // (2 * len(VARIANTS))
    for name, cases in phases(f"{SEED} {variant}", bench.place, count).items():
        ledger, truncated = bench.ledger(), bench.feed.stats()["truncated"]
        with given_up_soon(quiet_rig.rx, bench.rx) if name == WAITING else contextlib.nullcontext():
            rows, frames, ends = bench.injection.put(cases)
        expected = Counter(variant.column(each) for each in cases)
        twice = Counter(column for each in cases for column in each.twice)
        found = ledger.since(frames, ends, refused_fragments=twice.pop("requests", 0))
        assert found == expected + twice, f"{name}: {len(cases)} datagrams"
        assert (found - twice).total() == len(cases)
        wanted = [row_of(each.delivered, variant.datagram_size) for each in cases if each.delivered]
        assert rows == wanted, name
        assert bench.feed.stats()["truncated"] - truncated == sum(row["truncated"] for row in rows)
        total += found - twice
    print({column: total[column] for column in COLUMNS}, "of", total.total())


# The books themselves ----------------------------------------------------------------------------------------------


def test_a_seed_makes_the_same_datagrams_again():
    place = Place(4, PORT, ("192.0.2.11",), "192.0.2.1", ("239.195.0.1",), "239.195.0.2", "239.195.0.3", bytes(6))
    assert phases("1", place, 200) == phases("1", place, 200) != phases("2", place, 200)


@pytest.fixture
def in_order(multicast, quiet_rig, agent, tmp_path):
    """A bench, and three datagrams that are all to be delivered."""
    bench = Bench(multicast, quiet_rig, agent, IPV4, VARIANTS[0], tmp_path)
    return bench, phases("1", bench.place, 300)["whole in one packet"][:3]


def test_a_datagram_that_the_link_loses_does_not_pass_for_delivered(in_order):
    bench, cases = in_order
    ledger = bench.ledger()
    rows, frames, ends = bench.injection.put(cases[1:])
    assert len(rows) == frames == 2
    assert ledger.since(frames + 1, ends) == Counter(delivered=2, link=1)


def test_a_datagram_that_the_receiver_loses_does_not_pass_for_anything(in_order):
    bench, cases = in_order
    ledger = bench.ledger()
    bench.injection.load(cases)
    bench.injection.inject(0, len(cases))
    bench.feed.call("steal")
    rows, _, ends = bench.injection.put([])
    assert len(rows) == 2
    with pytest.raises(AssertionError, match="UDP handed 5 datagrams to sockets, which have 4"):
        ledger.since(len(cases), ends)
