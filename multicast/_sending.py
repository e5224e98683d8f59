"""What both senders go by: what may leave as one train (UDP_SEGMENT, udp(7)), and how long a full queue is waited for.

Owns the limits of a train, for which sockets there are any, and the times to wait. Must not send.
"""

from __future__ import annotations

import socket
import sys

from ._arguments import SOL_UDP

UDP_SEGMENT = 103  # linux/udp.h

# From how many datagrams on a train is worth it: measured with sendmmsg on Linux 6.18, 20 to 30,000 bytes, over lo and
# veth to a receiver that drains, and with the segmentation left to software. Two take 0.6 to 0.95 of the time that
# they take alone, eight take 0.2 to 0.65: it is a win from the second one on, at every length.
FEWEST_SEGMENTS = 2
MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of linux/udp.h; newer kernels take 128
_ROOM4 = 65_535 - 20 - 8  # as for a datagram: the total length of an IPv4 header is in 16 bits, with the headers
_ROOM6 = 65_535 - 8  # and the payload length of an IPv6 header with that of UDP, but without its own

# A kernel that refuses a train may do so since a segment is longer than the path takes: then shorter ones will do. But
# up to this length it fits every path (RFC 791: 576 bytes, with options and UDP header), so that can't be the reason.
FITS_EVERY_PATH = 576 - 60 - 8
EVERY_LENGTH = 65_536

# No event tells when a device's queue has room again. Its time is known: 1,000 packets of 1,500 bytes are 1.2 ms on a
# link of 10 Gbit/s.
FIRST_PAUSE, LONGEST_PAUSE = 100_000, 10_000_000  # ns; each is twice as long as the one before
PATIENCE = 1_000_000_000  # ns without a single datagram sent

_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h; the socket module names them since 3.14


def train_room(sock: socket.socket) -> int:
    """Return how many bytes of payload one train may have on a connected socket; 0 where it can't send any.

    Whether the kernel has UDP_SEGMENT has to be asked: one before 4.18, and another protocol's socket at any time,
    overlooks the control message, and makes one datagram of what should be many.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    try:
        own = sock.getsockopt(SOL_UDP, UDP_SEGMENT)
        peer = sock.getpeername()[0]
    except OSError:
        return 0
    if own or peer.startswith("::ffff:"):  # its owner has it cut by another rule; IPv4 in disguise has IPv4's limits
        return 0
    return _ROOM4 if sock.family == socket.AF_INET else _ROOM6


def drop_reports(family: int) -> tuple[int, int]:
    """Return level and name of the option that has the kernel tell of datagrams that a device's queue had no room for.

    With it on, no train is sent. A queue that takes trains apart (tbf, taprio) can drop a part of one, and a device
    without a queue, to which the kernel cuts them, the last one alone. Then the answer for the train is that of one
    of its datagrams, and no count made of it is exact.
    """
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, _IPV6_RECVERR
    return socket.IPPROTO_IP, _IP_RECVERR
