"""Filters between hosts, in both families: sources, fragments, more headers; and the kernel as the oracle of a model.

Must not wait to see that something does not come: the kernel counts what a filter refuses.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bpf import Datagram, wanted
from feeds import new_feed
from hypothesis import given, settings
from hypothesis import strategies as st
from net import python_environment
from rig import DEADLINE, _line

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters are a thing of Linux")

PORT = 40_000
GROUPS = {"IPv4": "239.195.3.1", "IPv6": "ff15::195:31"}
SOURCES = {
    "IPv4": ("192.0.2.11", "192.0.2.12", "192.0.2.13"),
    "IPv6": ("2001:db8::11", "2001:db8::12", "2001:db8::13"),
}

# Runs in rx: opens a receiver with a filter, and receives until a datagram ends in the word.
LISTEN = """if True:
    import json, socket, sys
    import multicast
    from multicast import _filter

    group, port, interface, conditions = json.loads(sys.argv[1])
    if "payload" in conditions:
        conditions["payload"] = {int(offset): data.encode() for offset, data in conditions["payload"].items()}
    sock = socket.socket(socket.AF_INET6 if ":" in group else socket.AF_INET, socket.SOCK_DGRAM)
    _filter.attach(sock, _filter.program(_filter.Filter(**conditions), sock.family, "listen"), "listen")
    sock.bind((group, port))
    multicast.join_group(sock, group, interface)
    with multicast.Receiver(sock, timeout=10, datagram_size=65_535) as rx:
        print("ready", flush=True)
        came = []
        while not came or not came[-1].endswith("end"):
            came += [bytes(view).decode() for view in rx.recv_batch()]
        print(json.dumps([came, rx.stats().drops]))
"""


class Process:
    """A script in a process of its own, in a host or beside the tests; it has to have ended well."""

    def __init__(self, package, host, *command: str, given: object) -> None:
        command = (sys.executable, "-P", "-W", "error", *command, json.dumps(given))
        self._process = subprocess.Popen(
            host.inside(*command) if host else command,
            env=python_environment(package),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        line = _line(self._process)
        assert line, self._process.communicate(timeout=DEADLINE)[1]
        return line

    def ask(self, question: object) -> object:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self.line())

    def close(self) -> None:
        try:
            _, said = self._process.communicate(timeout=DEADLINE)
            assert (self._process.returncode, said) == (0, "")
        finally:
            self._process.kill()


# Between hosts -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=GROUPS)
def family(request) -> str:
    return request.param


@pytest.fixture
def tx(rig, agent):
    return agent(rig.tx)


@pytest.fixture
def exchange(multicast, rig, tx, family):
    """Have tx send to a group, from a source each, while a receiver with a filter is there: what came, the drops."""

    def exchanged(conditions, *datagrams):
        group = GROUPS[family]
        process = Process(multicast, rig.rx, "-c", LISTEN, given=[group, PORT, "feed0", conditions])
        try:
            assert process.line() == "ready\n"
            tx.send(PORT, *((source, group, payload) for source, payload in datagrams))
            return json.loads(process.line())
        finally:
            process.close()

    return exchanged


def test_one_source_of_several_hosts_is_queued(exchange, family):
    first, second, third = SOURCES[family]
    came, drops = exchange({"source": second}, (first, "no"), (second, "yes"), (third, "no"), (second, "end"))
    assert (came, drops) == (["yes", "end"], 2)


def test_several_sources_are_queued_and_no_other(exchange, family):
    first, second, third = SOURCES[family]
    listed = [first, third, *(f"{second}{digit}" for digit in range(1, 5))]
    came, drops = exchange({"source": listed}, (first, "1"), (second, "no"), (third, "3"), (first, "end"))
    assert (came, drops) == (["1", "3", "end"], 1)


def test_a_datagram_in_fragments_is_judged_whole(exchange, family):
    listed, unlisted, _ = SOURCES[family]
    filler = "-" * 4000  # more than two packets of the link
    conditions = {"source": listed, "payload": {0: "A", 1471: "-" * 5, 4001: "B"}}
    sent = [(listed, f"A{filler}C"), (unlisted, f"A{filler}B"), (listed, f"B{filler}B"), (listed, f"A{filler}")]
    came, drops = exchange(conditions, *sent, (listed, f"A{filler}B"), (listed, f"A{filler}B, end"))
    assert (came, drops) == ([f"A{filler}B", f"A{filler}B, end"], 4)


# The kernel against a model ----------------------------------------------------------------------------------------

ORACLE = str(Path(__file__).parent / "agents" / "filtered.py")
# Cut out of two contents, so that they often match, and wholly or nearly.
CONTENTS = (bytes(range(1, 25)), bytes(range(1, 9)) + bytes(16))


def oracle(package, host, place):
    """Start the script that asks the kernel; yield it and what it sends from: {(source, more headers): port}."""
    process = Process(package, host, ORACLE, given=place)
    try:
        yield process, {(source, more): port for source, more, port in json.loads(process.line())}
    finally:
        process.close()


@pytest.fixture(scope="module")
def oracle_ipv4(multicast):
    """On the loopback interface."""
    yield from oracle(multicast, None, [*new_feed(), "lo", ["127.0.0.1", "127.0.0.2", "127.8.0.1"]])


@pytest.fixture(scope="module")
def oracle_ipv6(multicast, rig):
    """In tx, to itself."""
    yield from oracle(multicast, rig.tx, [GROUPS["IPv6"], 20_000, "feed0", SOURCES["IPv6"]])


@st.composite
def cases(draw, senders, decoys):
    """Conditions, and datagrams that these senders send."""
    sources = sorted({source for source, _ in senders})
    content = draw(st.sampled_from(CONTENTS))
    start, size = st.integers(0, 23), st.integers(1, 9)
    pieces = st.dictionaries(start, size, min_size=1, max_size=3)
    conditions = {
        "source": draw(st.none() | st.lists(st.sampled_from([*sources, *decoys]), min_size=1, max_size=40)),
        "source_port": draw(
            st.none() | st.lists(st.sampled_from(list(senders.values())) | st.integers(0, 65_535), min_size=1)
        ),
        "payload": draw(st.none() | pieces.map(lambda where: {at: content[at : at + n] for at, n in where.items()})),
    }
    if not any(conditions.values()):
        conditions["source"] = sources[:1]
    payloads = st.builds(
        lambda whole, length, at, octet: whole[:at][:length] + octet + whole[at + 1 :][: max(0, length - at - 1)],
        st.sampled_from(CONTENTS),
        st.integers(0, 24),
        start,
        st.binary(max_size=1),
    )
    datagrams = st.tuples(st.sampled_from(list(senders)), st.sampled_from(CONTENTS) | payloads)
    return conditions, draw(st.lists(datagrams, min_size=1, max_size=20))


def hold_against_the_model(process, ports, data, decoys) -> None:
    conditions, datagrams = data.draw(cases(ports, decoys))
    payload = conditions["payload"]
    asked = conditions | {"payload": payload and {at: piece.hex() for at, piece in payload.items()}}
    answer = process.ask(
        {"conditions": asked, "datagrams": [[*sender, payload.hex()] for sender, payload in datagrams]}
    )
    came = sorted((source, port, payload) for source, port, payload in answer["came"])
    expected = [
        (source, ports[source, more], payload.hex())
        for (source, more), payload in datagrams
        if wanted(conditions, Datagram(source, ports[source, more], payload))
    ]
    assert came == sorted(expected)
    assert answer["dropped"] == len(datagrams) - len(expected)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_kernel_queues_what_the_model_says_over_ipv4(oracle_ipv4, data):
    hold_against_the_model(*oracle_ipv4, data, [f"127.{n}.0.{1 + n % 3}" for n in range(1, 200)])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_kernel_queues_what_the_model_says_over_ipv6(oracle_ipv6, data):
    decoys = [f"2001:db8{':0' * (n % 3)}::{n:x}" for n in range(0x14, 200)]
    hold_against_the_model(*oracle_ipv6, data, decoys)
