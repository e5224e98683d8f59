"""One datagram out of a socket's queue, by the call of the socket module that tells what is wanted of it.

Owns the flags that receiving hands to the kernel, as `_mmsg.pxd` does for the native backend. Must not wait, or lose an
error.
"""

from __future__ import annotations

import socket
import sys

from . import _errors
from ._accounting_py import Came

_LINUX = sys.platform == "linux"
DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)  # 0: Windows has none, and whoever receives asks before
_WSAEMSGSIZE = 10040  # Windows: the datagram was longer than the buffer, which is full


def receive_one(sock: socket.socket, slot: memoryview, control_size: int, beside: bool, operation: str) -> Came:
    """Receive a datagram that is there into its slot.

    - control_size: bytes for its control messages, 0 if nobody asked; beside: whether anything but its bytes is wanted

    Raises BlockingIOError if nothing is there, and the system's errors as they are.
    """
    if _LINUX and not (control_size or beside):
        # MSG_TRUNC: the real length, also of what is cut
        return Came(sock.recv_into(slot, 0, socket.MSG_TRUNC | DONTWAIT))
    if not hasattr(sock, "recvmsg_into"):  # Windows
        try:
            return Came(*sock.recvfrom_into(slot))
        except OSError as error:
            if error.errno != _WSAEMSGSIZE:
                raise
            return Came(len(slot) + 1)  # longer, and that is all that it tells
    flags = DONTWAIT | (socket.MSG_TRUNC if _LINUX else 0)
    length, messages, flags, name = sock.recvmsg_into([slot], control_size, flags)
    if length == 0 and name is None and sock.family in (socket.AF_INET, socket.AF_INET6):
        raise _errors.shut_down(operation)  # an empty datagram has a sender
    if not _LINUX:  # elsewhere that it was cut is told, not from what
        length += bool(flags & socket.MSG_TRUNC)
    return Came(length, name, messages, bool(control_size and flags & socket.MSG_CTRUNC))
