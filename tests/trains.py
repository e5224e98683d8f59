"""How tests see which datagrams left as one train: a socket with UDP_GRO on is given a train as it left, uncut.

Owns that socket, and datagrams that can be told apart. Must not use the package: it would be its own witness.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104  # linux/udp.h
IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
SO_NO_CHECK = 11  # asm-generic/socket.h
IPPROTO_UDPLITE = 136
END = b"end of the test"


def payloads(lengths: list[int], seed: int = 0) -> list[bytes]:
    """Datagrams of these lengths: the number of each, again and again, so that hardly two are the same."""
    numbered = [(seed + i).to_bytes(4, "big") for i in range(len(lengths))]
    return [(number * (length // 4 + 1))[:length] for number, length in zip(numbered, lengths, strict=True)]


class Listener:
    """A socket of the standard library that receives a group, or what is sent to its own address.

    - uncut: have trains as they left (UDP_GRO)
    """

    def __init__(
        self, address: str, port: int, index: int, *, uncut: bool = True, proto: int = 0, seconds: float = 10
    ) -> None:
        ipv6 = ":" in address
        self.sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM, proto)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
            with contextlib.suppress(PermissionError):  # then what the system grants anybody has to do
                self.sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
            self.sock.settimeout(seconds)
            self.sock.bind((address, port))
            packed = socket.inet_pton(self.sock.family, address)
            if packed[0] == 0xFF and ipv6:
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + struct.pack("@I", index))
            elif packed[0] >> 4 == 0xE and not ipv6:
                membership = struct.pack("@4s4si", packed, bytes(4), index)
                self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            if uncut:
                self.sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        except BaseException:
            self.sock.close()
            raise

    def next(self) -> list[bytes]:
        """Receive a datagram, or those of a train."""
        data, control, *_ = self.sock.recvmsg(1 << 17, socket.CMSG_SPACE(4))
        size = next((int.from_bytes(value, sys.byteorder) for *_, value in control), 0)
        return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]

    def until_end(self) -> list[list[bytes]]:
        """Receive until END comes: each train, or datagram that came alone."""
        came = []
        while (train := self.next()) != [END]:
            came.append(train)
        return came

    def close(self) -> None:
        self.sock.close()
