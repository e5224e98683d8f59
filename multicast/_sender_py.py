"""Sending: buffers of any kind, held while the kernel takes the bytes from them, one system call a datagram or train.

Owns which datagrams go together, and what a refused train and a partial send mean. Must not copy a payload.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time

from . import _arguments, _errors, _sending
from ._arguments import SOL_UDP
from ._endpoint_py import ERROR, WRITABLE, Claim, Endpoint, final

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from socket import socket as _Socket  # in a class whose own attribute is called socket

    from typing_extensions import Buffer

_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)  # 0: Windows has none


def _get_buffer(data: Buffer, operation: str) -> memoryview:
    try:
        view = memoryview(data)
    except TypeError:
        raise _errors.no_buffer(operation, data) from None
    except BufferError:
        raise _errors.not_contiguous(operation, data) from None
    if not view.c_contiguous:
        raise _errors.not_contiguous(operation, data)
    return view


_SEND_AT_ONCE = 64  # as many as the native backend hands to one sendmmsg


@final
class Sender(Endpoint):
    """Sends datagrams to the group that its socket is connected to.

    Sender(sock, *, segmentation=True)

    - sock: an open SOCK_DGRAM socket, connected to a group; `close()` closes it. `open_sender` makes both.
    - segmentation: whether `send_batch` may hand several datagrams to the kernel as one train

    Raises TypeError or ValueError for arguments that can't be, and OSError.
    """

    def __init__(self, sock: _Socket, *, segmentation: bool = True) -> None:
        sock = _arguments.connected_socket(sock, "Sender")
        room = _sending.train_room(sock) if _arguments.boolean(segmentation, "Sender", "segmentation") else 0
        if hasattr(self, "_own"):
            raise _errors.initialised("Sender")
        self._room = room
        self._too_long = _sending.EVERY_LENGTH  # from here on datagrams go alone, since the kernel refused such a train
        self._report_option = _sending.drop_reports(sock.family)
        self._waits = self._waited_ns = 0
        self._reports: bool | None = None  # whether each dropped one is told of; asked for once a call
        super().__init__(sock)

    def _reports_wanted(self) -> bool:
        """Whether every datagram has to have an answer of its own."""
        if self._reports is None:
            try:
                self._reports = bool(self._own.getsockopt(*self._report_option))
            except OSError:
                self._reports = True
        return self._reports

    def _run(self, lengths: list[int], first: int) -> int:
        """Return how many from `first` on can leave together: of one length, but for a shorter last one."""
        length = total = lengths[first]
        if not 0 < length < self._too_long or self._reports:
            return 1
        n = 1
        for following in lengths[first + 1 : first + _sending.MOST_SEGMENTS]:
            total += following
            if not 0 < following <= length or total > self._room:
                break
            n += 1
            if following < length:
                break
        return 1 if n < _sending.FEWEST_SEGMENTS or self._reports_wanted() else n

    def _refused(self, length: int, number: int | None) -> bool:
        """Whether a train of this length was refused for being one: then remember, and do without.

        Of a train that is refused, nothing has left (udp_send_skb of net/ipv4/udp.c): its datagrams can go alone.
        """
        if number == errno.EMSGSIZE or (number == errno.EINVAL and length > _sending.FITS_EVERY_PATH):
            self._too_long = length  # for the path; alone it is fragmented, or fails by itself
        elif number in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT):
            self._too_long = 0  # no checksums by the device, or none at all, or another protocol
        else:
            return False
        return True

    def _send_train(self, views: list[memoryview]) -> None:
        size = struct.pack("@H", views[0].nbytes)
        self._own.sendmsg(views, [(SOL_UDP, _sending.UDP_SEGMENT, size)], _DONTWAIT)

    def _pause(self, ns: int) -> None:
        """Let a device's queue drain for so long; a close ends it.

        Not on the socket: it is ready for writing, as far as poll can tell, and a message on its error queue stays.
        """
        if not hasattr(select, "poll"):
            select.select([self._wake], [], [], ns / 1e9)
            return
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.poll(ns / 1e6)

    @contextlib.contextmanager
    def _counted_wait(self, again: bool) -> Iterator[None]:
        """Count a wait for room, as one with the last if `again`."""
        begun = time.monotonic_ns()
        try:
            yield
        finally:
            self._waits += not again
            self._waited_ns += time.monotonic_ns() - begun

    def _send_some(self, data: memoryview | list[memoryview], operation: str) -> OSError | None:
        """Send a datagram or a train; return what kept it from being sent. What a signal's handler raises is raised."""
        found = pause = end = 0
        again = False
        while True:
            try:
                if _DONTWAIT or self._poll(True, 0) & WRITABLE:
                    if isinstance(data, list):
                        self._send_train(data)
                    else:
                        self._own.send(data, _DONTWAIT)
                    return None
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno is None:  # a handler's own, such as the usual TimeoutError of an alarm
                    raise
                if error.errno != errno.ENOBUFS:
                    return _errors.not_sent(error.errno, operation)
                if self._closed:
                    return _errors.closed(operation)
                now = time.monotonic_ns()
                end = end or now + _sending.PATIENCE
                if now >= end:
                    return _errors.not_sent(errno.ENOBUFS, operation)
                pause = min(2 * pause or _sending.FIRST_PAUSE, _sending.LONGEST_PAUSE)
                with self._counted_wait(again):
                    self._pause(pause)
                again = True
                continue
            if self._closed:
                return _errors.closed(operation)
            if found & ERROR:  # and no error that sending would have met
                return _errors.error_queue(operation)
            with self._counted_wait(again):
                found = self._wait(True, None)
            again = True

    def _send(self, buffers: tuple[Buffer, ...], operation: str) -> int:
        """Send each buffer as a datagram: how many went; a failure is raised only if the first one met it."""
        sent = 0
        claim = Claim(exclusive=True)
        try:
            if not self._enter(claim, operation):
                raise _errors.closed(operation)
            self._reports = None
            while sent < len(buffers):
                held: list[memoryview] = []
                try:
                    try:
                        for data in buffers[sent : sent + _SEND_AT_ONCE]:
                            held.append(_get_buffer(data, operation))  # noqa: PERF401 - to release those before a bad one
                    except Exception:  # whatever an exporter raises
                        if sent == 0:
                            raise
                        return sent
                    lengths = [view.nbytes for view in held] if self._room and len(held) > 1 else None
                    at = 0
                    while at < len(held):
                        n = self._run(lengths, at) if lengths else 1
                        error = self._send_some(held[at] if n == 1 else held[at : at + n], operation)
                        if error is None:
                            at += n
                            sent += n
                        elif n == 1 or not self._refused(held[at].nbytes, error.errno):
                            if sent == 0:
                                raise error
                            return sent
                finally:
                    for view in held:
                        view.release()
            return sent
        finally:
            self._leave(claim)

    def send(self, data: Buffer) -> int:
        """Send one datagram from any contiguous buffer; return its length in bytes.

        Waits while the socket's send buffer is full, and for the device's queue as `send_batch` does. Raises OSError
        with the errno of what failed (EMSGSIZE: longer than a datagram can be; ENOBUFS: the device's queue took nothing
        for a second; EBADF: closed), RuntimeError while another thread sends and in a forked child.
        """
        self._send((data,), "send")
        return memoryview(data).nbytes

    def send_batch(self, buffers: Iterable[Buffer]) -> int:
        """Send each of several contiguous buffers as a datagram, in order; return how many went.

        By sendmmsg(2), and buffers of one length in a row, of which the last may be shorter, as trains of up to 64,
        which the kernel cuts on their way out (UDP_SEGMENT, udp(7), Linux 4.18): receivers get the same datagrams.
        Where the kernel refuses a train, each goes alone, as all do with `segmentation=False`. Whatever handles packets
        on the way out (a queueing discipline, netfilter, a capture on this host) takes a train for one.

        Fewer than given means that one of the others failed: sending the rest raises its error. Raises only where none
        went: as `send` does, and TypeError or BufferError for what is no contiguous buffer. Buffers are handed to the
        kernel 64 at a time, so up to 63 good ones before a bad one may not have gone.

        What the device's queue has no room for, Linux drops without a word (send(2)), and it counts as sent. With
        IP_RECVERR (IPV6_RECVERR) on it answers ENOBUFS: then no trains are sent, what was dropped is sent again until
        it goes, and ENOBUFS is raised after a second in which nothing did. The copies for receivers on this host
        (`loopback`) are made before that queue, so they get such a datagram more than once.
        """
        return self._send(tuple(buffers), "send_batch")

    @property
    def waits(self) -> int:
        """How often sending had to wait for room: in the send buffer (EAGAIN) or in a device's queue (ENOBUFS)."""
        return self._waits

    @property
    def waited_ns(self) -> int:
        """How long these waits took, in ns, also those that ended in an error or by a signal."""
        return self._waited_ns

    def __repr__(self) -> str:
        return f"<multicast.Sender {'closed' if self.closed else f'fd={self.fileno()}'}>"
