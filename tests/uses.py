"""What each field of `Capabilities` promises, done: a function for each, which fails where the feature does not work.

Sends within this process and on the loopback interface only: multicast with TTL 0, else to 127.0.0.1 and ::1.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
import warnings
from types import ModuleType

from feeds import further
from seccomp import denied

GROUP6, LO, SOL_UDP = "ff15::239:255", 1, 17
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class Uses:
    """Uses of a package, by the names of the fields.

    - feed: a group and a port that nobody else uses
    - ipv6: whether to use it over IPv6, too
    """

    def __init__(self, package: ModuleType, feed: tuple[str, int], *, ipv6: bool) -> None:
        self.package, self.feed = package, feed
        self.families = [socket.AF_INET, socket.AF_INET6] if ipv6 else [socket.AF_INET]

    def use(self, name: str) -> None:
        """Use one; raises where it doesn't work."""
        with contextlib.ExitStack() as self.closing:
            if name in self.package.COLUMNS:
                self.column(name)
            else:
                getattr(self, name)()

    def works(self, name: str) -> bool:
        try:
            self.use(name)
        except (OSError, AssertionError):
            return False
        return True

    def opened(self, thing):
        return self.closing.enter_context(thing)

    def receiver(self, **options):
        return self.opened(self.package.open_receiver(*self.feed, interface="lo", timeout=10, **options))

    def sender(self, own: str | None = None) -> socket.socket:
        """A socket that sends to the group, from one of the loopback interface's addresses."""
        sock = self.opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.package.set_multicast_interface(sock, "lo")
        self.package.set_multicast_ttl(sock, 0)
        if own is not None:
            sock.bind((own, 0))
        sock.connect(self.feed)
        return sock

    def unicast(self, family: socket.AddressFamily, **options):
        """A receiver on the loopback address, and a socket connected to it."""
        near, far = (self.opened(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        near.bind((_LOOPBACK[family], 0))
        far.connect(near.getsockname())
        return self.opened(self.package.Receiver(near, timeout=10, **options)), far

    # Batches: the calls that do it one by one are denied

    def recvmmsg(self) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.opened(far)
        receiver = self.opened(self.package.Receiver(near, timeout=10))
        for payload in (b"1", b"2", b"3"):
            far.send(payload)
        one_by_one = [(call, {}, errno.EPERM) for call in ("recvmsg", "recvfrom")]
        assert [bytes(view) for view in denied(receiver.recv_batch, *one_by_one)] == [b"1", b"2", b"3"]

    def sendmmsg(self) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.opened(far)
        sender = self.opened(self.package.Sender(near))
        one_by_one = [(call, {}, errno.EPERM) for call in ("sendmsg", "sendto")]
        assert denied(lambda: sender.send_batch([b"1", b"2", b"3"]), *one_by_one) == 3
        assert [far.recv(9) for _ in range(3)] == [b"1", b"2", b"3"]

    # Families and membership

    def ipv4(self) -> None:
        receiver = self.receiver(isolation=False)
        self.sender().send(b"over IPv4")
        assert bytes(receiver.recv_batch()[0]) == b"over IPv4"

    def ipv6(self) -> None:
        receiver, far = self.unicast(socket.AF_INET6)
        far.send(b"over IPv6")
        assert bytes(receiver.recv_batch()[0]) == b"over IPv6"
        self.opened(self.package.open_receiver(GROUP6, self.feed[1], interface="lo", isolation=False))

    def interfaces(self) -> None:
        assert "lo" in [each.name for each in self.package.interfaces()]
        with self.package.genSocket() as sock:
            self.package.set_multicast_interface(sock, "lo")

    def source_specific(self) -> None:
        receiver = self.receiver(source="127.0.0.1")
        self.sender("127.0.0.2").send(b"from another")
        self.sender("127.0.0.1").send(b"from the source")
        assert [bytes(view) for view in receiver.recv_batch()] == [b"from the source"]
        if socket.AF_INET6 in self.families:
            sock = self.opened(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            self.package.join_group(sock, GROUP6, "lo", "::1")
            self.package.leave_group(sock, GROUP6, "lo", "::1")

    def source_filters(self) -> None:
        receiver = self.receiver()
        self.package.set_source_filter(receiver.socket, self.feed[0], "exclude", "127.0.0.2", "lo")
        self.sender("127.0.0.2").send(b"from the excluded one")
        self.sender("127.0.0.1").send(b"from another")
        assert [bytes(view) for view in receiver.recv_batch()] == [b"from another"]
        if socket.AF_INET6 in self.families:
            sock = self.opened(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            self.package.join_group(sock, GROUP6, "lo")
            self.package.set_source_filter(sock, GROUP6, "exclude", "::1", "lo")
            assert self.package.get_source_filter(sock, GROUP6, "lo").sources == ("::1",)

    # Isolation

    def isolation_ipv4(self) -> None:
        group, port = self.feed
        other = further(group)
        self.opened(self.package.open_receiver(other, port, interface="lo"))
        plain = self.opened(self.package.genSocket())  # bound to any address: the kernel alone keeps the other from it
        plain.bind(("", port))
        self.package.join_group(plain, group, "lo")
        several = self.opened(self.package.open_receiver([group, "239.253.0.1"], port, interface="lo", timeout=10))
        stray = self.opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.feed, joined = (other, port), self.feed
        self.sender().send(b"of the other group")
        self.feed = joined
        stray.connect(("127.0.0.1", port))
        stray.send(b"to this host alone")
        self.sender().send(b"of the group")
        assert [bytes(view) for view in several.recv_batch()] == [b"of the group"]
        plain.settimeout(10)
        while (came := plain.recv(99)) != b"of the group":
            assert came == b"to this host alone"

    def isolation_ipv6(self) -> None:
        self.opened(self.package.open_receiver(GROUP6, self.feed[1], interface="lo"))
        receiver, far = self.unicast(socket.AF_INET6, isolation=True)
        far.send(b"to this host alone")
        assert select.select([receiver], [], [], 10)[0]
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(receiver.recv_batch(0))
        assert receiver.stats().foreign == 1

    # What is told of a datagram

    def column(self, name: str) -> None:
        for family in self.families:
            receiver, far = self.unicast(family, columns=name, batch_size=1)
            if name == "drops":
                overflow(receiver, far)
                receiver.recv_batch()  # so that one more fits in, which tells of those that did not
            elif family == socket.AF_INET:
                far.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 7)
                far.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
            else:
                far.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 7)
                far.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xB8)
            far.send(b"told of")
            while bytes((batch := receiver.recv_batch())[0]) != b"told of":
                pass
            if name == "source":
                assert batch.source(0) == far.getsockname()
            elif name == "destination":
                assert batch.destination(0) == _LOOPBACK[family]
            elif name == "interface":
                assert batch.interface(0) == LO
            elif name == "ttl":
                assert batch.ttls[0] == 7
            elif name == "tos":
                assert batch.tos[0] == 0xB8
            else:
                assert batch.drops[0] > 0

    def software_timestamps(self) -> None:
        for family in self.families:
            receiver, far = self.unicast(family, timestamps="software")
            begin = time.time_ns()
            far.send(b"stamped")
            batch = receiver.recv_batch()
            assert batch.timestamp_kind(0) == "software"
            assert begin <= batch.timestamps[0] <= time.time_ns()

    def hardware_timestamps(self) -> None:
        for family in self.families:
            receiver, far = self.unicast(family, timestamps="hardware")
            # By the kernel, since the loopback interface is no card; and by that only once it has switched this on for
            # all that is received, which it does in its own time (netstamp_wanted of net/core/dev.c).
            deadline = time.monotonic() + 10
            stamped = None
            while stamped is None and time.monotonic() < deadline:
                far.send(b"stamped")
                stamped = receiver.recv_batch().timestamp_kind(0)
            assert stamped == "software"

    def kernel_drops(self) -> None:
        for family in self.families:
            receiver, far = self.unicast(family)
            overflow(receiver, far)
            assert receiver.stats().drops
            assert receiver.stats().queued

    def memory(self) -> None:
        for family in self.families:
            buffer = bytearray(1 << 18)
            receiver, far = self.unicast(family, memory=buffer)
            far.send(b"to be found there")
            assert bytes(receiver.recv_batch()[0]) in buffer

    def transparent_hugepages(self) -> None:
        self.on_huge_pages("transparent")

    def reserved_hugepages(self) -> None:
        self.on_huge_pages("reserved")

    def on_huge_pages(self, kind: str) -> None:
        for family in self.families:
            receiver, far = self.unicast(family, hugepages=kind)
            far.send(b"on a huge page")
            assert bytes(receiver.recv_batch()[0]) == b"on a huge page"
            assert receiver.stats().huge_memory

    def real_lengths(self) -> None:
        for family in self.families:
            receiver, far = self.unicast(family, datagram_size=10)
            far.send(bytes(100))
            assert receiver.recv_batch().real_lengths[0] == 100

    # What the kernel does for a socket

    def receive_buffer_force(self) -> None:
        with open("/proc/sys/net/core/rmem_max", encoding="ascii") as file:
            beyond = int(file.read()) + 4096
        sock = self.opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert self.package.set_receive_buffer(sock, beyond) >= beyond

    def gro(self) -> None:
        for family in self.families:
            receiver, far = self.unicast(family, gro=True, batch_size=1)
            far.sendmsg([bytes(100)], [(SOL_UDP, 103, struct.pack("=H", 10))])  # UDP_SEGMENT
            assert len(receiver.recv_batch()) == 10

    def segmentation(self) -> None:
        for family in self.families:
            receiver, far = self.unicast(family)
            far.setsockopt(SOL_UDP, 103, 10)
            far.send(bytes(35))
            assert list(receiver.recv_batch().lengths) == [10, 10, 10, 5]

    def filter(self) -> None:
        receiver = self.receiver(filter=self.package.Filter(payload=b"yes"))
        sender = self.sender()
        sender.send(b"no")
        sender.send(b"yes")
        assert [bytes(view) for view in receiver.recv_batch()] == [b"yes"]

    def busy_poll(self) -> None:
        for family in self.families:
            sock = self.opened(socket.socket(family, socket.SOCK_DGRAM))
            wanted = sock.getsockopt(socket.SOL_SOCKET, 46) + 10
            self.package.set_busy_poll(sock, wanted)
            assert sock.getsockopt(socket.SOL_SOCKET, 46) == wanted

    def error_queue(self) -> None:
        for family in self.families:
            with socket.socket(family, socket.SOCK_DGRAM) as nobody:
                nobody.bind((_LOOPBACK[family], 0))
                name = nobody.getsockname()
            sock = self.opened(socket.socket(family, socket.SOCK_DGRAM))
            self.package.set_error_queue(sock, True)
            sock.sendto(b"nobody is there", name)
            poll = select.poll()
            poll.register(sock, 0)
            assert poll.poll(10_000)
            assert [each.errno for each in self.package.read_errors(sock)] == [errno.ECONNREFUSED]

    # What a receiver waits for beside datagrams

    def self_healing(self) -> None:
        self.package.skt._said.discard("healing")  # else the warning is one that a process gets once
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            self.receiver(self_healing=True)
        assert [str(each.message) for each in warned] == []

    def silence_watchdog(self) -> None:
        told = []
        receiver = self.receiver(silence=0.05, on_silence=told.append)
        for _ in range(200):
            if not told:
                with contextlib.suppress(TimeoutError):
                    raise AssertionError(receiver.recv_batch(0.1))
        assert told


def overflow(receiver, far: socket.socket) -> None:
    """Send more than the smallest buffer holds, so that some is dropped."""
    receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(20):
        far.send(bytes(1000))
