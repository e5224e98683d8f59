"""Runs inside a host of tests/rig.py: takes every frame that comes in on one link, and puts frames on it as it is told.

Owns the two packet sockets (packet(7)). Must not judge a frame, and must not hide that the kernel dropped one.
"""

import select
import socket
import struct
import sys

import commands

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h; the socket module has none of these.
SOL_PACKET, PACKET_STATISTICS, PACKET_VNET_HDR = 263, 6, 15
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
LARGEST = 10 + 14 + 65_575  # virtio_net_hdr, Ethernet, and what the kernel may hand on as one packet
MOST = 500  # frames in one answer

link, receive_buffer = sys.argv[1], int(sys.argv[2])
# Of protocol 0, a socket gets nothing before it is bound, when it would be from every link.
taking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
try:
    taking.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
except PermissionError:  # root of a user namespace has no more than net.core.rmem_max
    taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
taking.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)  # a header that tells whether checksum and segments are done
taking.bind((link, ETH_P_ALL))
putting = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
putting.bind((link, 0))


def do_frames(seconds):
    """Wait for a frame, no longer than that; return all that are there, and how many the kernel dropped meanwhile."""
    found = []
    ready = select.select([taking], [], [], seconds)[0]
    while ready and len(found) < MOST:
        try:
            frame, (_, _, kind, *_) = taking.recvfrom(LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        if kind != socket.PACKET_OUTGOING:
            found.append(frame.hex())
    # Reading these counters sets them back to 0.
    _, dropped = struct.unpack("=II", taking.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return [found, dropped]


def do_put(frame):
    putting.send(bytes.fromhex(frame))


# It listens from here on: what happens after this line is read can't be missed.
commands.serve(globals(), "listening")
taking.close()
putting.close()
