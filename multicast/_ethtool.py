"""Asking the driver of a network interface, by ioctl(2): what linux/ethtool.h and linux/sockios.h have. Linux alone.

Owns the ioctl and the counters that drivers keep. Must not change what a card is set to.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import sys

if sys.platform == "linux":
    import fcntl  # now: a process that became another user, or went elsewhere (chroot), may not find it any more

SIOCETHTOOL = 0x8946  # linux/sockios.h
_GSTRINGS, _GSTATS, _GSSET_INFO = 0x1B, 0x1D, 0x37  # ETHTOOL_..., linux/ethtool.h
_ETH_SS_STATS = 1
_SETS = struct.Struct("=IIQ")  # struct ethtool_sset_info: cmd, reserved, sset_mask; then a length for each bit
_STRINGS = struct.Struct("=III")  # struct ethtool_gstrings: cmd, string_set, len; then names of 32 bytes
_STATS = struct.Struct("=II")  # struct ethtool_stats: cmd, n_stats; then numbers of 8 bytes
_NAME = 32
# The kernel writes as many as there are by then, whatever room there is: a queue more has some twenty.
_MORE = 1024


def ioctl(name: str, request: int, data: bytes) -> bytes:
    """Ask the driver of an interface: what stands behind ifr_data of struct ifreq (netdevice(7)), before and after."""
    behind = array.array("B", data)
    address, _ = behind.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, request, struct.pack("@16sP16x", os.fsencode(name), address))
    return behind.tobytes()


def statistics(name: str) -> dict[str, int]:
    """Return the counters that a driver keeps of an interface, by its own names, as `ethtool -S` prints them.

    There are none where it keeps none. Raises OSError: ENODEV where there is no such interface.
    """
    asked = ioctl(name, SIOCETHTOOL, _SETS.pack(_GSSET_INFO, 0, 1 << _ETH_SS_STATS) + bytes(4))
    mask = _SETS.unpack_from(asked)[2]
    count = int.from_bytes(asked[_SETS.size :], sys.byteorder) if mask else 0
    if not count:
        return {}
    room = count + _MORE
    names = ioctl(name, SIOCETHTOOL, _STRINGS.pack(_GSTRINGS, _ETH_SS_STATS, count) + bytes(room * _NAME))
    values = ioctl(name, SIOCETHTOOL, _STATS.pack(_GSTATS, count) + bytes(room * 8))
    if _STRINGS.unpack_from(names)[2] != _STATS.unpack_from(values)[1]:  # they became more or fewer between the two
        return {}
    found = {}
    for at in range(_STATS.unpack_from(values)[1]):
        text = names[_STRINGS.size + at * _NAME :][:_NAME].partition(b"\0")[0].strip()
        found[text.decode("ascii", "replace")] = struct.unpack_from("=Q", values, _STATS.size + at * 8)[0]
    return found
