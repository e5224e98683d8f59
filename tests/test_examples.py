"""Each program in examples/ works as it stands, and says what is true of traffic that the test knows.

Owns how a program is started, waited for and ended as Ctrl-C ends it. Must not wait without a deadline.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest
from feeds import further
from net import python_environment

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text("utf-8")
WARNINGS = ["-W", "error", "-W", "ignore:set_receive_buffer"]  # how large a buffer may be is the machine's
DEADLINE = 30  # seconds: more than anything here takes, on a busy machine, too
MOLD = struct.Struct(">10sQH")
CME = struct.Struct("<IQ")

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the examples are about Linux")


def packet(sequence: int, *messages: bytes, session: bytes = b"SESSION-01") -> bytes:
    """A downstream packet of MoldUDP64; without messages, a heartbeat."""
    return MOLD.pack(session, sequence, len(messages)) + b"".join(struct.pack(">H", len(m)) + m for m in messages)


def stored(group: str) -> str:
    """A group as /proc/net has it."""
    return socket.inet_aton(group)[:: -1 if sys.byteorder == "little" else 1].hex().upper()


def until(done, what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class Program:
    """An example that runs; its output is read line by line.

    - read: what reads a file of /proc/net where it runs
    """

    def __init__(self, package, name: str, *words: object, cwd=None, host=None) -> None:
        command = [sys.executable, "-P", *WARNINGS, str(EXAMPLES / name), *map(str, words)]
        self.read = host.read if host else lambda path: pathlib.Path(path).read_text("ascii")
        self.process = subprocess.Popen(
            host.inside(*command) if host else command,
            env=python_environment(package) | {"PYTHONUNBUFFERED": "1"},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that what it starts ends with it
        )

    def joined(self, *groups: str) -> None:
        """Wait until the groups are joined: their sockets are bound by then."""

        def seen() -> bool:
            assert self.process.poll() is None, self.process.stderr.read()
            listed = self.read("/proc/net/igmp")
            return all(stored(group) in listed for group in groups)

        until(seen, f"it has not joined {groups}")

    def drained(self, *groups: str) -> None:
        """Wait until nothing is queued for a socket that is bound to one of the groups."""

        def seen() -> bool:
            lines = [line.split() for line in self.read("/proc/net/udp").splitlines()]
            queues = [line[4].split(":")[1] for line in lines if line[1].split(":")[0] in map(stored, groups)]
            assert len(queues) == len(groups)
            return all(int(queued, 16) == 0 for queued in queues)

        until(seen, "it does not receive")

    def line(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def end(self, number: int = signal.SIGINT) -> list[str]:
        """Send the signal, and return the lines that are left of what it says."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> list[str]:
        said, complaints = self.process.communicate(timeout=DEADLINE)
        assert (self.process.returncode, complaints) == (0, "")
        return said.splitlines()


@pytest.fixture
def start(multicast):
    """Start an example; what still runs after the test is ended."""
    running = []

    def run(*words, **options) -> Program:
        running.append(Program(multicast, *words, **options))
        return running[-1]

    yield run
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()


@pytest.fixture
def lines(feed):
    """Two feeds that no other test uses: a second group on the same port."""
    group, port = feed
    return [(group, port), (further(group), port)]


def test_each_is_listed_and_short():
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) == 10
    assert re.findall(r"\((\w+\.py)\)", README) == [program.name for program in programs]
    for program in programs:
        text = program.read_text("utf-8")
        assert text.count("\n") <= 40, program.name
        assert re.match(rf'"""[^"]*{program.name} \[', text), program.name  # says how it is called


def test_the_feed_of_the_readme_is_one_that_the_programs_read(multicast, start, feed):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    network = further(feed[0], 100).rpartition(".")[0] + "."
    code = code.replace("239.255.64.", network).replace("5000", str(feed[1]))
    with subprocess.Popen([sys.executable, "-P", "-c", code], env=python_environment(multicast)) as sending:
        try:
            gaps = start("gaps.py", f"{network}10", feed[1], "lo")
            latency = start("latency.py", f"{network}11", feed[1], "lo")
            numbers = start("numpy_batch.py", f"{network}5", feed[1], "lo")
            sources = start("source_specific.py", f"{network}2", feed[1], "lo", "127.0.0.1")
            for program, last in ((gaps, 10), (latency, 11), (numbers, 5), (sources, 2)):
                program.joined(f"{network}{last}")
            receive = start("receive.py", f"{network}1", feed[1], "lo")
            while receive.line().startswith("0 datagrams/s"):
                pass  # after that the others have had one
            assert gaps.end() == ["messages lost by this host: 0, before it: 0"]
            assert re.match(r"[1-9]\d* packets, 0 gaps, 0 messages missing\nA: [1-9]", "\n".join(numbers.end()))
            assert re.match(r"exchange to kernel, [1-9]", latency.end()[0])
            assert re.fullmatch(r"[1-9]\d* from 127\.0\.0\.1", sources.end()[-1])
            receive.end()
        finally:
            sending.kill()


def test_receive(start, opened, feed):
    program = start("receive.py", *feed, "lo")
    program.joined(feed[0])
    opened.sender(feed).send_batch([bytes(100)] * 20)
    program.drained(feed[0])
    came = 0
    while came < 20:  # in one second, or on both sides of its end
        said = re.fullmatch(
            r"(\d+) datagrams/s, 0\.0 Mbit/s, [0-9.]+ a batch, 0 dropped, \d+ bytes queued", program.line()
        )
        came += int(said[1])
    assert program.end(signal.SIGTERM)[-1] == "received 20 datagrams, 2000 bytes; 0 dropped by this host"


def from_loopback(address: str, feed: tuple[str, int], *datagrams: bytes) -> None:
    """Send from an address of the loopback network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        sock.bind((address, 0))
        for each in datagrams:
            sock.sendto(each, feed)


def test_source_specific(start, feed):
    program = start("source_specific.py", *feed, "lo", "127.0.0.1", "127.0.0.3")
    program.joined(feed[0])
    assert program.line() == f"{feed[0]} on lo: include 127.0.0.1, 127.0.0.3"
    from_loopback("127.0.0.1", feed, b"1", b"2")
    from_loopback("127.0.0.2", feed, b"of nobody that was named")
    from_loopback("127.0.0.3", feed, b"3")
    program.drained(feed[0])
    assert program.end() == ["2 from 127.0.0.1", "1 from 127.0.0.3"]


def test_source_specific_falls_back_to_a_filter(start, feed):
    """One source more than the kernel takes."""
    most = int(pathlib.Path("/proc/sys/net/ipv4/igmp_max_msf").read_text("ascii"))
    sources = [f"127.0.1.{number}" for number in range(1, most + 2)]
    program = start("source_specific.py", *feed, "lo", *sources)
    program.joined(feed[0])
    assert program.line() == f"{feed[0]} on lo: exclude nobody"
    from_loopback("127.0.0.1", feed, b"of nobody that was named")
    from_loopback(sources[-1], feed, b"1")
    program.drained(feed[0])
    program.process.send_signal(signal.SIGINT)
    said, complaints = program.process.communicate(timeout=DEADLINE)
    assert said == f"1 from {sources[-1]}\n"
    assert "net.ipv4.igmp_max_msf" in complaints
    assert complaints.endswith("\nfalling back to a filter\n")


def test_source_specific_names_the_interfaces_there_are(start, feed):
    program = start("source_specific.py", *feed, "nosuch0", "127.0.0.1")
    said, complaints = program.process.communicate(timeout=DEADLINE)
    assert (program.process.returncode, said) == (1, "")
    assert "no interface 'nosuch0'" in complaints
    assert "Traceback" not in complaints


def test_arbitrate(start, opened, lines):
    program = start("arbitrate.py", *lines[0], "lo", *lines[1], "lo")
    groups = [group for group, _ in lines]
    program.joined(*groups)
    a, b = map(opened.sender, lines)
    a.send(packet(1, b"one", b"two"))
    program.drained(*groups)
    b.send_batch([packet(1, b"one", b"two"), packet(3, b"three")])
    program.drained(*groups)
    a.send_batch([packet(3, b"three"), packet(4), packet(5, b"five")])  # what is 4 comes on neither
    assert program.line() == "lost on both lines: 4 to 4"
    b.send(packet(6, b"six"))
    program.drained(*groups)
    assert program.end() == ["first on A: 2, first on B: 2; messages lost on both: 1"]


def test_arbitrate_between_two_interfaces(start, rig, agent, feed):
    """One group on both, as a network that has lines on networks of their own may use it."""
    group, port = feed
    program = start("arbitrate.py", group, port, "feed0", group, port, "feed1", host=rig.rx)
    until(lambda: program.read("/proc/net/igmp").count(stored(group)) == 2, "it has not joined on both")
    tx = agent(rig.tx)

    def send(source: str, *packets: bytes) -> None:
        tx.send(port, *((source, group, each.decode("ascii")) for each in packets))

    send("192.0.2.11", packet(1, b"one"), packet(2, b"two"), packet(4, b"four"))
    send("198.51.100.11", packet(1, b"one"), packet(2, b"two"), packet(3, b"three"))  # fills the gap, be it in time
    send("198.51.100.11", packet(9, b"nine"))
    lost = [program.line()]
    if lost == ["lost on both lines: 3 to 3"]:  # not in time: a busy machine
        lost.append(program.line())
    assert lost[-1] == "lost on both lines: 5 to 8"
    said = re.fullmatch(r"first on A: (\d), first on B: (\d); messages lost on both: (\d)", program.end()[-1])
    a, b, missing = map(int, said.groups())
    assert (a + b + len(lost), missing) == (6, len(lost) + 3)


def test_numpy_batch(start, opened, feed):
    program = start("numpy_batch.py", *feed, "lo")
    program.joined(feed[0])
    packets = [packet(1, b"A...", b"E..."), packet(3), packet(3, b"E."), packet(9, b"X"), packet(7, b"late")]
    opened.sender(feed).send_batch([*packets, MOLD.pack(b"SESSION-01", 10, 0xFFFF)])
    program.drained(feed[0])
    assert program.end() == ["gap: 4 to 8", "4 packets, 1 gaps, 5 messages missing", "A: 1, E: 1, X: 1, l: 1"]


def test_asyncio_feeds(start, opened, lines):
    program = start("asyncio_feeds.py", *lines[0], "lo", *lines[1], "lo")
    groups = [group for group, _ in lines]
    program.joined(*groups)
    for number, each in enumerate(lines, 2):
        opened.sender(each).send_batch([b"datagram"] * number)
    until(lambda: program.line() == f"{groups[0]}: 2, {groups[1]}: 3", "it does not report")
    ended = program.end(signal.SIGTERM)
    assert ended[-2:] == [f"{groups[0]}: 2 datagrams, 0 dropped", f"{groups[1]}: 3 datagrams, 0 dropped"]


def test_processes(start, opened, lines):
    groups = [group for group, _ in lines]
    program = start("processes.py", lines[0][1], "lo", *groups)
    program.joined(*groups)
    assert all(re.fullmatch(r"239\.[\d.]+: on CPU \d+", program.line()) for _ in groups)
    for number, each in enumerate(lines, 2):
        opened.sender(each).send_batch([b"datagram"] * number)
    program.drained(*groups)
    assert sorted(program.end()) == sorted(f"{group}: {n} datagrams, 0 dropped" for n, group in enumerate(groups, 2))


def test_gaps(start, opened, feed):
    program = start("gaps.py", *feed, "lo")
    program.joined(feed[0])
    tx = opened.sender(feed)
    tx.send_batch([packet(1, b"one"), packet(2, b"two"), packet(3), packet(7, b"seven")])
    assert program.line() == (
        "gap: 3 to 6, lost before this host's socket: ask for retransmission, look at the card and the network"
    )
    program.process.send_signal(signal.SIGSTOP)  # so that its buffer is full
    room = int(pathlib.Path("/proc/sys/net/core/rmem_default").read_text("ascii")) // 512
    for sequence in range(8, 8 + 2 * room):
        tx.send(packet(sequence, b"x"))
    program.process.send_signal(signal.SIGCONT)
    program.drained(feed[0])
    tx.send(packet(8 + 2 * room, b"the first that it gets after that"))
    said = re.fullmatch(r"gap: (\d+) to (\d+), (\d+) datagrams dropped by this host: .*", program.line())
    begin, end, dropped = map(int, said.groups())
    assert (end, dropped) == (7 + 2 * room, end - begin + 1)
    assert program.end() == [f"messages lost by this host: {dropped}, before it: 4"]


def test_latency(start, opened, feed):
    program = start("latency.py", *feed, "lo")
    program.joined(feed[0])
    now = time.time_ns()
    opened.sender(feed).send_batch([CME.pack(number, now - 10**9) for number in range(7)])  # a second under way
    program.drained(feed[0])
    said = program.end()
    assert [said[0], said[said.index("kernel to Python, 7 datagrams")]] == [
        "exchange to kernel, 7 datagrams",
        "kernel to Python, 7 datagrams",
    ]
    bars = [re.fullmatch(r"  < +([0-9.]+) µs +([0-9.]+)% #*", line).groups() for line in said if line[0] == " "]
    assert float(bars[0][0]) > 1e6  # µs
    assert bars[-1][1] == "100.000"


def test_watchdog(start, opened, lines):
    (a, port), (b, _) = lines
    program = start("watchdog.py", 0.2, a, port, "lo", b, port, "lo")
    assert program.line() == f"line A: joined {a} on lo"
    said = program.line()
    assert said.startswith("line A: quiet: all is well on this host")
    assert program.line() == f"line B: joined {b} on lo"
    assert program.line().startswith("line B: quiet")
    assert program.line() == f"line A: joined {a} on lo"
    program.end()


def test_watchdog_of_a_line_that_is_dead(start, rig, agent, lines):
    (a, port), (b, _) = lines
    rig.rx.ip("link add lineA type veth peer name lineA-far", "link set lineA up", "link set lineA-far up")
    rig.rx.wait_until_up("lineA")
    program = start("watchdog.py", 0.5, a, port, "lineA", b, port, "lo", host=rig.rx)
    assert program.line() == f"line A: joined {a} on lineA"
    rig.rx.ip("link delete lineA")
    lost = "line A: dead: lineA is gone; joined: False; 0 datagrams until then"
    assert program.line() == lost
    assert program.line() == f"line B: joined {b} on lo"


def test_recorder(multicast, start, opened, feed, tmp_path):
    program = start("recorder.py", "record", "feed.pcap", *feed, "lo", cwd=tmp_path)
    program.joined(feed[0])
    sent = [b"first", b"", bytes(range(256))]
    tx = opened.sender(feed)
    for each in sent:
        tx.send(each)
    program.drained(feed[0])
    assert program.end() == []
    recorded = (tmp_path / "feed.pcap").read_bytes()
    assert struct.unpack_from("<I16xI", recorded) == (0xA1B23C4D, 228)
    at, times = 24, []
    for each in sent:
        seconds, ns, kept, size = struct.unpack_from("<IIII", recorded, at)
        times.append(seconds * 10**9 + ns)
        assert kept == size == 28 + len(each)
        headers = struct.unpack_from(">HHHHBBH4s4sHHHH", recorded, at + 16)
        assert headers[:7] == (0x4500, size, 0, 0, 0, 17, 0)
        assert headers[7:9] == (socket.inet_aton(tx.socket.getsockname()[0]), socket.inet_aton(feed[0]))
        assert headers[9:] == (tx.socket.getsockname()[1], feed[1], 8 + len(each), 0)
        assert recorded[at + 44 : at + 16 + size] == each
        at += 16 + size
    assert at == len(recorded)
    assert times == sorted(times)
    assert abs(times[0] - time.time_ns()) < DEADLINE * 10**9

    # The last one is half a second after the first now. The first may be sent late, so what is certain is only that
    # the last does not come before half a second has passed since the program began.
    pace = 500_000_000
    later = struct.pack("<II", *divmod(times[0] + pace, 10**9))
    last = at - 44 - len(sent[-1])
    (tmp_path / "feed.pcap").write_bytes(recorded[:last] + later + recorded[last + len(later) :])
    rx = opened.receiver(feed)
    begun = time.monotonic_ns()
    replay = start("recorder.py", "replay", "feed.pcap", *feed, "lo", cwd=tmp_path)
    came: list[bytes] = []
    while len(came) < len(sent):
        came += map(bytes, rx.recv_batch(timeout=DEADLINE))
    assert time.monotonic_ns() - begun >= pace
    assert came == sent
    assert replay.finish() == []
