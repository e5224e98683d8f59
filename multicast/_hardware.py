"""Hardware receive timestamps: whether an interface's network card makes them, and switching that on and off.

Owns the three ioctls that are about it and the names of the filters. Linux alone has them. Must not change what else
the card is set to, such as whether it stamps what is sent: other programs (ptp4l) live by that.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys

from . import _arguments, _errors
from ._ethtool import SIOCETHTOOL, ioctl
from ._interfaces import interface_index, interface_name, interface_names
from ._values import HardwareTimestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._interfaces import InterfaceLike

_SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x89B0, 0x89B1  # linux/sockios.h
_ETHTOOL_GET_TS_INFO = 0x41  # linux/ethtool.h
_RX_AND_RAW = 1 << 2 | 1 << 6  # SOF_TIMESTAMPING_RX_HARDWARE, SOF_TIMESTAMPING_RAW_HARDWARE, linux/net_tstamp.h
_TX_OFF, _TX_ON = 0, 1  # HWTSTAMP_TX_

# linux/net_tstamp.h: enum hwtstamp_rx_filters, in its order
_FILTERS = (
    "NONE",
    "ALL",
    "SOME",
    "PTP_V1_L4_EVENT",
    "PTP_V1_L4_SYNC",
    "PTP_V1_L4_DELAY_REQ",
    "PTP_V2_L4_EVENT",
    "PTP_V2_L4_SYNC",
    "PTP_V2_L4_DELAY_REQ",
    "PTP_V2_L2_EVENT",
    "PTP_V2_L2_SYNC",
    "PTP_V2_L2_DELAY_REQ",
    "PTP_V2_EVENT",
    "PTP_V2_SYNC",
    "PTP_V2_DELAY_REQ",
    "NTP_ALL",
)
_NONE, _ALL, _SOME = 0, 1, 2
# Those that are of packets over UDP, the widest first. A driver that has no ALL may still grant more than was asked.
_OVER_UDP = (
    *map(_FILTERS.index, ("NTP_ALL", "PTP_V2_EVENT", "PTP_V2_L4_EVENT", "PTP_V1_L4_EVENT")),
    *map(_FILTERS.index, ("PTP_V2_SYNC", "PTP_V2_L4_SYNC", "PTP_V1_L4_SYNC")),
    *map(_FILTERS.index, ("PTP_V2_DELAY_REQ", "PTP_V2_L4_DELAY_REQ", "PTP_V1_L4_DELAY_REQ")),
)

_TS_INFO = struct.Struct("=IIiI12xI12x")  # struct ethtool_ts_info: cmd, flags, clock's index, tx_types, rx_filters
_CONFIG = struct.Struct("=iii")  # struct hwtstamp_config: flags, tx_type, rx_filter


def hardware_timestamps(interface: InterfaceLike) -> HardwareTimestamps:
    """Return what the interface's network card can do about timestamping, and what it is set to.

    - interface: as in `join_group`, but not None

    Asks the driver (ETHTOOL_GET_TS_INFO, SIOCGHWTSTAMP; timestamping.rst of Linux), which any user may.
    Raises TypeError, ValueError, and OSError: ENODEV, EADDRNOTAVAIL (there is no such interface); ENOSYS: not Linux.
    """
    doing = "hardware_timestamps"
    name, shown = _named(interface, doing)
    abilities = _Abilities(name, f"{doing} {shown}")
    config = _config(name, f"{doing} {shown}")
    return HardwareTimestamps(
        interface=name,
        supported=abilities.supported,
        filters=abilities.names,
        filter=None if config is None else _filter_name(config[2]),
        clock=abilities.clock,
    )


def set_hardware_timestamps(interface: InterfaceLike, enabled: bool = True) -> str:
    """Switch the timestamping of what the interface's network card receives on or off; return the filter in force.

    - interface: as in `join_group`, but not None
    - enabled: for all packets (HWTSTAMP_FILTER_ALL). Where the card has no such filter, one of those that it has for
      packets over UDP is asked for, and the driver may grant more

    Read the answer, which is the driver's: with HWTSTAMP_FILTER_ALL every datagram is stamped, with one of PTP or NTP
    the datagrams of those protocols are, and no other feed's. It holds for the whole host until somebody changes it,
    and a socket gets the timestamps once it asks for them. How the card stamps what is sent stays as it is; where the
    driver does not tell, senders may have it if the card can. What is so already is not set again, and needs no
    privilege; anything else needs CAP_NET_ADMIN.
    Raises TypeError, ValueError, and OSError: EOPNOTSUPP (the card has none), EPERM, ERANGE (the card refused what it
    offers), ENODEV, EADDRNOTAVAIL (there is no such interface); ENOSYS: not Linux.
    """
    doing = "set_hardware_timestamps"
    wanted = _arguments.boolean(enabled, doing, "enabled")
    name, shown = _named(interface, doing)
    abilities = _Abilities(name, f"{doing} {shown}")
    if not abilities.supported:
        raise _errors.no_hardware_timestamps(doing, shown)
    if not wanted:
        asked = enough = [_NONE]
    elif abilities.offered(_ALL):
        asked = enough = [_ALL]
    else:
        asked = abilities.offered(*_OVER_UDP)
        if not asked:
            raise _errors.no_hardware_timestamps(doing, shown, abilities.names)
        enough = [_ALL, _SOME, *asked]  # let be, if another program has set it: there is no better to be had
    config = _config(name, f"{doing} {shown}")
    if config is None:
        flags, tx_type = 0, _TX_ON if abilities.sends else _TX_OFF
    else:
        flags, tx_type, in_force = config
        if in_force in enough:
            return _filter_name(in_force)
    try:
        return _filter_name(_granted(name, flags, tx_type, asked))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise _errors.no_hardware_timestamps(doing, shown) from None
        hint = _errors.card_filter_hint(error.errno or 0, map(_filter_name, asked))
        raise _errors.system(error, f"{doing} {shown}", hint) from None


def _named(interface: InterfaceLike, doing: str) -> tuple[str, str]:
    """Return the name of the interface meant, and how to call it in an error."""
    if interface is None:
        raise TypeError(f"{doing}: interface is a name, an index, one of its own addresses or an Interface, not None")
    index = interface_index(interface, doing)
    if sys.platform != "linux":
        raise _errors.linux_only(doing)
    try:
        return socket.if_indextoname(index), interface_name(index)
    except OSError:  # it went meanwhile: ENXIO, elsewhere ENODEV
        raise _errors.no_interface(doing, index, interface_names()) from None


class _Abilities:
    """What a driver says that a card can do: ETHTOOL_GET_TS_INFO."""

    __slots__ = ("_filters", "clock", "sends", "supported")

    def __init__(self, name: str, doing: str) -> None:
        try:
            answer = ioctl(name, SIOCETHTOOL, _TS_INFO.pack(_ETHTOOL_GET_TS_INFO, 0, 0, 0, 0))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise _errors.system(error, doing) from None
            answer = _TS_INFO.pack(0, 0, -1, 0, 0)
        _, flags, clock, tx_types, self._filters = _TS_INFO.unpack(answer)
        self.supported = flags & _RX_AND_RAW == _RX_AND_RAW
        self.clock: int | None = None if clock < 0 else clock
        self.sends = bool(tx_types >> _TX_ON & 1)

    def offered(self, *wanted: int) -> list[int]:
        """Return those of these filters that the card offers."""
        return [each for each in wanted if self._filters >> each & 1]

    @property
    def names(self) -> tuple[str, ...]:
        """All filters that the card offers."""
        return tuple(map(_filter_name, self.offered(*range(32))))


def _config(name: str, doing: str) -> tuple[int, int, int] | None:
    """Return what the card is set to: flags, what it stamps of what is sent, filter. None: the driver does not tell."""
    try:
        flags, tx_type, rx_filter = _CONFIG.unpack(ioctl(name, _SIOCGHWTSTAMP, bytes(_CONFIG.size)))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EPERM):
            raise _errors.system(error, doing) from None
        return None
    return flags, tx_type, rx_filter


def _granted(name: str, flags: int, tx_type: int, asked: Sequence[int]) -> int:
    """Ask for the first of these filters that the card does not refuse; return what it says is in force."""
    for each in asked:
        try:
            return int(_CONFIG.unpack(ioctl(name, _SIOCSHWTSTAMP, _CONFIG.pack(flags, tx_type, each)))[2])
        except OSError as error:
            if error.errno != errno.ERANGE or each == asked[-1]:
                raise
    raise AssertionError("nothing was asked")


def _filter_name(number: int) -> str:
    """Return a filter's name; for one that is newer than this, its number in place of a name."""
    return f"HWTSTAMP_FILTER_{_FILTERS[number] if 0 <= number < len(_FILTERS) else number}"
