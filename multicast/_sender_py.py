"""Sending: buffers of any kind, held while the kernel takes the bytes from them, one system call a datagram.

Owns what a partial send means. Must not copy a payload.
"""

from __future__ import annotations

import socket

from . import _arguments, _errors
from ._endpoint_py import ERROR, WRITABLE, Claim, Endpoint, final

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
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

    Sender(sock): an open SOCK_DGRAM socket, connected to a group; `close()` closes it. `open_sender` makes both.
    Raises TypeError or ValueError for a socket that can't be, and OSError.
    """

    def __init__(self, sock: _Socket) -> None:
        sock = _arguments.connected_socket(sock, "Sender")
        if hasattr(self, "_own"):
            raise RuntimeError("Sender: already initialised")
        super().__init__(sock)

    def _send_one(self, data: memoryview, operation: str) -> OSError | None:
        """Send a datagram; return what kept it from being sent. What a signal's handler raises is raised."""
        found = 0
        while True:
            try:
                if _DONTWAIT or self._poll(True, 0) & WRITABLE:
                    self._own.send(data, _DONTWAIT)
                    return None
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno is None:  # a handler's own, such as the usual TimeoutError of an alarm
                    raise
                return _errors.system(error, operation)
            if self._closed:
                return _errors.closed(operation)
            if found & ERROR:  # and no error that sending would have met
                return _errors.error_queue(operation)
            found = self._wait(True, None)

    def _send(self, buffers: tuple[Buffer, ...], operation: str) -> int:
        """Send each buffer as a datagram: how many went; a failure is raised only if the first one met it."""
        sent = 0
        claim = Claim(exclusive=True)
        try:
            if not self._enter(claim, operation):
                raise _errors.closed(operation)
            while sent < len(buffers):
                held: list[memoryview] = []
                try:
                    try:
                        for data in buffers[sent : sent + _SEND_AT_ONCE]:
                            held.append(_get_buffer(data, operation))  # noqa: PERF401 - to release those before a bad one
                    except (TypeError, BufferError, ValueError):
                        if sent == 0:
                            raise
                        return sent
                    for view in held:
                        error = self._send_one(view, operation)
                        if error is not None:
                            if sent == 0:
                                raise error
                            return sent
                        sent += 1
                finally:
                    for view in held:
                        view.release()
            return sent
        finally:
            self._leave(claim)

    def send(self, data: Buffer) -> int:
        """Send one datagram from any contiguous buffer; return its length in bytes.

        Waits while the socket's send buffer is full. Raises OSError with the errno of what failed (EMSGSIZE: longer
        than a datagram can be; EBADF: closed), RuntimeError while another thread sends and in a forked child.
        """
        self._send((data,), "send")
        return memoryview(data).nbytes

    def send_batch(self, buffers: Iterable[Buffer]) -> int:
        """Send each of several contiguous buffers as a datagram, in order, by sendmmsg(2); return how many went.

        Fewer than given means that one of the others failed: sending the rest raises its error. Raises only where none
        went: as `send` does, and TypeError or BufferError for what is no contiguous buffer. Buffers are handed to the
        kernel 64 at a time, so up to 63 good ones before a bad one may not have gone.
        """
        return self._send(tuple(buffers), "send_batch")

    def __repr__(self) -> str:
        return f"<multicast.Sender {'closed' if self.closed else f'fd={self.fileno()}'}>"
