"""What is on the wire between the hosts of tests/rig.py: what comes in at one end of a link, as long as it is open.

Owns the sniffer in that host and the waiting. Must not lose a frame silently: one that the kernel dropped, or that is
not what its RFC says, fails the test.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import DEADLINE, Host, Worker
from wire import Datagram, Record, decode

SNIFFER = Path(__file__).parent / "agents" / "sniffer.py"
VIRTIO_NET_HDR = 10  # bytes: struct virtio_net_hdr of linux/virtio_net.h
NEEDS_CSUM, GSO_UDP_L4 = 1, 5


class Capture:
    """The frames that a host gets on a link, from the moment that the `with` block is entered.

    - host, link: what comes in there. What that host itself sends is seen at the other end
    - receive_buffer: bytes of the sniffer's queue, which holds what comes until it is asked for here; an ordinary user
      gets no more than net.core.rmem_max

    records, datagrams: all that came so far, in order; an IP fragment fails the test. The kernel repeats each report
    after a random time (RFC 3376, 8.11; RFC 3810, 9.11), one of an earlier test, too: look for a group that no other
    test uses, and never count.
    """

    def __init__(self, host: Host, link: str, *, receive_buffer: int = 1 << 22) -> None:
        self.records: list[Record] = []
        self.datagrams: list[Datagram] = []
        self.host, self.link = host, link
        self._worker = Worker(host, SNIFFER, link, str(receive_buffer))
        assert self._worker.said == "listening"

    def __str__(self) -> str:
        return f"{self.link} of {self.host.name}"

    def until(
        self, enough: Callable[[frozenset[Record]], bool], *, group: str | None = None, seconds: float = DEADLINE
    ) -> frozenset[Record]:
        """Wait until the records that came, of this group or of all, satisfy it; return them. Fails after `seconds`."""

        def seen() -> frozenset[Record]:
            return frozenset(each for each in self.records if group in (None, each.group))

        self._wait(lambda: enough(seen()), seconds, f"reports{f' of {group}' if group else ''}")
        return seen()

    def expect(self, group: str, expected: dict[str, set[str]], *, seconds: float = DEADLINE) -> None:
        """Wait until just this was reported of a group: each kind of record, with all the sources that it came with.

        Sources are added up, since the kernel may tell of several changes in one record or of each in its own.
        """

        def added_up(records: frozenset[Record]) -> dict[str, set[str]]:
            return {
                kind: {s for r in records if r.type == kind for s in r.sources} for kind in {r.type for r in records}
            }

        def enough(records: frozenset[Record]) -> bool:
            found = added_up(records)
            return all(kind in found and found[kind] >= sources for kind, sources in expected.items())

        found = added_up(self.until(enough, group=group, seconds=seconds))
        assert found == expected, f"{self}: of {group} was reported {found}, not {expected}"

    def datagrams_until(self, enough: Callable[[list[Datagram]], bool], *, seconds: float = DEADLINE) -> list[Datagram]:
        """Wait until the UDP datagrams that came, in order, satisfy it; return them. Fails after `seconds`."""
        self._wait(lambda: enough(list(self.datagrams)), seconds, "datagrams")
        return list(self.datagrams)

    def put(self, frame: bytes) -> None:
        """Put a frame on the link, as if the host had sent it."""
        self._worker.call("put", frame=frame.hex())

    def _wait(self, enough: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        self._take(0)
        while not enough():
            left = deadline - time.monotonic()
            if left <= 0:
                seen = "\n".join(f"  {each}" for each in [*self.records, *self.datagrams]) or "  nothing"
                pytest.fail(f"{self}: the {what} waited for did not come within {seconds} s; seen:\n{seen}")
            self._take(min(left, DEADLINE / 2))

    def _take(self, seconds: float) -> None:
        frames, dropped = self._worker.call("frames", seconds=seconds)
        for each in map(bytes.fromhex, frames):
            head, frame = each[:VIRTIO_NET_HDR], each[VIRTIO_NET_HDR:]
            segment = int.from_bytes(head[4:6], sys.byteorder) if head[1] == GSO_UDP_L4 else 0
            for found in decode(frame, segment=segment, unfinished=bool(head[0] & NEEDS_CSUM)):
                (self.records if isinstance(found, Record) else self.datagrams).append(found)
        assert not dropped, f"{self}: the kernel dropped {dropped} frames: the sniffer was asked too late"

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._take(0)  # a malformed or dropped frame at the end is as bad as one in the middle
        finally:
            self.close()
