"""The host's network interfaces: listing them, and finding the one that a caller means.

Owns how the system is asked: rtnetlink(7) on Linux, getifaddrs(3) elsewhere. Must not keep what it was told, since
interfaces come and go.
"""

from __future__ import annotations

import errno
import operator
import os
import socket
import struct
import sys

from . import _arguments, _errors
from ._values import Interface

if sys.platform == "linux":
    import fcntl  # now: a process that went elsewhere (chroot) may not find it any more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    InterfaceLike: TypeAlias = str | int | _arguments.AddressLike | Interface | None
    Link: TypeAlias = tuple[str, int, int, str | None]  # name, index, flags, an own address
    LinkEvent: TypeAlias = tuple[bool, int, str | None]  # whether it went, index, name

_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8  # the same on every system that has getifaddrs
_IFF_MULTICAST = 0x1000 if sys.platform == "linux" else 0x8000


def interfaces() -> list[Interface]:
    """Return this host's interfaces by rising index, each with its addresses and flags.

    Raises OSError. On Windows interfaces have no addresses here, and their flags are not known to be set.
    """
    if sys.platform == "linux":
        rows = _netlink_links()
    elif sys.platform == "win32":
        rows = [(name, index, 0, None) for index, name in socket.if_nameindex()]
    else:
        rows = getifaddrs_links()
    found: dict[int, tuple[str, int, list[str]]] = {}
    for name, index, flags, address in rows:
        addresses = found.setdefault(index, (name, flags, []))[2]
        if address is not None:
            addresses.append(address)
    return [
        Interface(
            name=name,
            index=index,
            addresses=tuple(addresses),
            up=bool(flags & _IFF_UP),
            multicast=bool(flags & _IFF_MULTICAST),
            loopback=bool(flags & _IFF_LOOPBACK),
        )
        for index, (name, flags, addresses) in sorted(found.items())
    ]


def interface_index(interface: InterfaceLike, doing: str, *, gone: bool = False) -> int:
    """Return the index of the interface meant, 0 for None: the kernel's choice.

    A text of digits is an interface's name if one is called so, which Linux allows, and else an index: getaddrinfo(3)
    reads the scope of an address so, too.

    - gone: whether an index may be that of an interface which exists no more: it can be left, not joined

    Raises TypeError, ValueError, and OSError: ENODEV where there is no such interface, EADDRNOTAVAIL where no interface
    has that address. ValueError, too, where several have it, as a link-local one may be, and no zone says which.
    """
    if interface is None:
        return 0
    if isinstance(interface, Interface):
        return _checked(interface.index, interface.name, doing)
    if isinstance(interface, str):
        address = _arguments.parse_address(interface)
        if address is None and interface.isascii() and interface.isdecimal():
            return _named_or_numbered(interface, doing, gone=gone)
        if address is None:
            return _checked(None, interface, doing)
    elif hasattr(interface, "packed"):
        address = _arguments.address(interface, doing, "interface")
    else:
        index = _index(interface, doing)
        return index if gone else _checked(index, None, doing)
    try:
        there = interfaces()
    except OSError as error:
        raise _errors.system(error, f"{doing}: looking for the interface that has the address {address}") from None
    found = [each for each in there if any(_same(own, address) for own in each.addresses)]
    if address.zone is not None:
        zone = interface_index(address.zone, doing)
        found = [each for each in found if each.index == zone]
    if not found:
        raise _errors.no_own_address(doing, interface)
    if len(found) > 1:
        raise _errors.ambiguous_address(doing, interface, (each.name for each in found))
    return found[0].index


def route_index(address: _arguments.Address) -> int:
    """Return the index of the interface that the route to an address leads to; 0 where the system does not tell.

    Linux joins a group there if no interface is named, but of memberships and filters knows each by its index alone.
    """
    if sys.platform != "linux":
        return 0
    try:
        routes = list(_netlink_ask(_RTM_GETROUTE, _REQUEST_ACK, _route_request(address), _RTM_NEWROUTE))
    except OSError:  # no route, or a sandbox without netlink
        return 0
    found = [_attributes(route[_RTMSG.size :]).get(_RTA_OIF, b"") for route in routes]
    return int.from_bytes(found[0], sys.byteorder) if found else 0


def is_here(index: int) -> bool:
    """Whether there is an interface of this index."""
    try:
        return bool(socket.if_indextoname(index))
    except OSError:
        return False


def interface_names() -> list[str]:
    """Return the names of all interfaces, for an error; none where they can't be listed, as in a sandbox."""
    try:
        return [name for _, name in socket.if_nameindex()]
    except OSError:
        return []


def interface_name(index: int) -> str:
    """Return how to call an interface in an error, also one that has gone."""
    try:
        return f"{socket.if_indextoname(index)} (index {index})"
    except OSError:
        return f"index {index}"


def _index(value: object, doing: str) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise TypeError(
            f"{doing}: interface is a name, an index, one of the interface's own addresses, an Interface or None, "
            f"not {_arguments.shown(value)}"
        )
    if not 0 < number < 2**31:
        raise _out_of_range(number, doing)
    return number


def _named_or_numbered(digits: str, doing: str, *, gone: bool) -> int:
    for index, name in _known(None, digits).items():
        if name == digits:
            return index
    if len(digits) > 10:  # int() refuses the very long ones in words of its own
        raise _out_of_range(digits, doing)
    return interface_index(int(digits), doing, gone=gone)


def _out_of_range(number: object, doing: str) -> ValueError:
    shown = _arguments.shown(number)
    return ValueError(f"{doing}: an interface's index is an integer from 1 to {2**31 - 1}, not {shown}")


def _checked(index: int | None, name: str | None, doing: str) -> int:
    """Return the index if the system still has such an interface; an Interface must still be the one it names."""
    names = _known(index, name)
    if index is None:
        index = next((each for each, known in names.items() if known == name), None)
    if index is None or index not in names or (name is not None and names[index] != name):
        raise _errors.no_interface(doing, name if name is not None else index, names.values())
    return index


def _known(index: int | None, name: str | None) -> dict[int, str]:
    """Return the names of all interfaces; in a sandbox without netlink, which listing needs, of the one meant."""
    try:
        return dict(socket.if_nameindex())
    except OSError as error:
        if error.errno in _errors.OUT_OF:
            raise
    try:
        found = socket.if_nametoindex(str(name)) if index is None else index
        return {found: socket.if_indextoname(found)}
    except (OSError, ValueError):  # ValueError: of a name that none can be
        return {}


def _same(own: str, wanted: _arguments.Address) -> bool:
    address = _arguments.parse_address(own)
    return address is not None and address.packed == wanted.packed


# Linux: rtnetlink(7). Messages are a header (length, type, flags, sequence, port), a struct, then attributes.

_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 18, 22, 26, 16, 20, 24
_RTM_DELLINK = 17
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_ACK, _REQUEST_DUMP = 0x5, 0x301  # NLM_F_REQUEST with NLM_F_ACK, or NLM_F_DUMP: either has an end
_IFLA_IFNAME, _IFLA_MTU, _IFA_ADDRESS, _IFA_LOCAL, _RTA_DST, _RTA_OIF = 3, 4, 1, 2, 1, 4
_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1
_HEADER = struct.Struct("=IHHII")
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination's length, ..., flags
_ATTRIBUTE = struct.Struct("=HH")


def _netlink_links() -> list[Link]:
    rows: list[Link] = []
    links: dict[int, tuple[str, int]] = {}
    for index, flags, attributes in _netlink_each_link():
        name = os.fsdecode(attributes[_IFLA_IFNAME].rstrip(b"\0"))
        links[index] = (name, flags)
        rows.append((name, index, flags, None))
    for payload in _netlink_dump(_RTM_GETADDR, _RTM_NEWADDR):
        family, _, _, _, index = _IFADDRMSG.unpack_from(payload)
        attributes = _attributes(payload[_IFADDRMSG.size :])
        packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)  # on a tunnel, ADDRESS is the other end's
        if packed and index in links and family in (socket.AF_INET, socket.AF_INET6):
            name, flags = links[index]
            rows.append((name, index, flags, socket.inet_ntop(family, packed)))
    return rows


def link_details() -> dict[int, tuple[int, int, str]]:
    """Return by index what an `Interface` doesn't tell. Linux alone.

    That is all 32 flags IFF_..., the MTU in bytes, and the kind of a link that is no card's, such as veth or bridge.
    """
    return {
        index: (
            flags,
            int.from_bytes(attributes.get(_IFLA_MTU, b""), sys.byteorder),
            _attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode("ascii"),
        )
        for index, flags, attributes in _netlink_each_link()
    }


def _netlink_each_link() -> Iterator[tuple[int, int, dict[int, bytes]]]:
    for payload in _netlink_dump(_RTM_GETLINK, _RTM_NEWLINK):
        _, _, index, flags, _ = _IFINFOMSG.unpack_from(payload)
        yield index, flags, _attributes(payload[_IFINFOMSG.size :])


def _route_request(address: _arguments.Address) -> bytes:
    request = _RTMSG.pack(address.family, 8 * len(address.packed), 0, 0, 0, 0, 0, 0, 0)
    return request + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _RTA_DST) + address.packed


def _netlink_dump(request: int, answer: int) -> Iterator[bytes]:
    return _netlink_ask(request, _REQUEST_DUMP, bytes(4), answer)


def _netlink_ask(request: int, flags: int, body: bytes, answer: int) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(_HEADER.pack(_HEADER.size + len(body), request, flags, 1, 0) + body, (0, 0))
        while True:
            for kind, payload in _messages(netlink.recv(1 << 18)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number == 0:
                        return
                    raise OSError(number, f"interfaces: {os.strerror(number)}")
                if kind == answer:
                    yield payload


def link_events(data: bytes) -> Iterator[LinkEvent]:
    """Return what messages to the group RTNLGRP_LINK tell of links, in their order."""
    for kind, payload in _messages(data):
        if kind in (_RTM_NEWLINK, _RTM_DELLINK):
            family, _, index, _, _ = _IFINFOMSG.unpack_from(payload)
            # A bridge's AF_BRIDGE is about its ports: one that leaves is "deleted", and the interface is still there.
            if family == socket.AF_UNSPEC:
                attributes = _each_attribute(payload[_IFINFOMSG.size :])
                name = next((value for attribute, value in attributes if attribute == _IFLA_IFNAME), None)
                yield kind == _RTM_DELLINK, index, None if name is None else os.fsdecode(name.rstrip(b"\0"))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the kind and the payload of each message."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            break
        yield kind, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    return dict(_each_attribute(data))


def _each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


# Linux: one question about one interface, by netdevice(7). The kernel answers for the namespace of the socket that
# asks, whatever namespace the thread is in, and without the lock that rtnetlink takes.

_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8910, 0x8913, 0x8933
_IFREQ_INT, _IFREQ_SHORT = struct.Struct("=16si20x"), struct.Struct("=16sH22x")


def link_name(asking: socket.socket, index: int) -> str | None:
    """Return the name of the interface that has this index; None: none has it."""
    answer = _ask(asking, _SIOCGIFNAME, _IFREQ_INT.pack(b"", index))
    return None if answer is None else os.fsdecode(answer[:16].partition(b"\0")[0])


def link_index(asking: socket.socket, name: str) -> int:
    """Return the index of the interface that has this name; 0: none has it."""
    answer = _ask(asking, _SIOCGIFINDEX, _IFREQ_INT.pack(os.fsencode(name), 0))
    return 0 if answer is None else int(_IFREQ_INT.unpack(answer)[1])


def link_flags(asking: socket.socket, name: str) -> int | None:
    """Return the low 16 of the flags IFF_... of the interface that has this name; None: none has it."""
    answer = _ask(asking, _SIOCGIFFLAGS, _IFREQ_SHORT.pack(os.fsencode(name), 0))
    return None if answer is None else int(_IFREQ_SHORT.unpack(answer)[1])


def _ask(asking: socket.socket, request: int, ifreq: bytes) -> bytes | None:
    try:
        return fcntl.ioctl(asking, request, ifreq)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return None
        raise


# Elsewhere: getifaddrs(3). Its list looks the same on Linux, where the tests hold it against rtnetlink.


def getifaddrs_links() -> list[Link]:
    """List interfaces and their addresses through the C library."""
    import ctypes

    class IfAddrs(ctypes.Structure):
        pass

    IfAddrs._fields_ = [
        ("next", ctypes.POINTER(IfAddrs)),
        ("name", ctypes.c_char_p),
        ("flags", ctypes.c_uint),
        ("address", ctypes.POINTER(ctypes.c_ubyte)),
    ]
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(IfAddrs)()
    if libc.getifaddrs(ctypes.byref(first)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"interfaces: {os.strerror(number)}")
    indexes = {name: index for index, name in socket.if_nameindex()}
    rows: list[Link] = []
    try:
        each = first
        while each:
            name = os.fsdecode(each.contents.name)
            if name in indexes:  # not one that went meanwhile
                rows.append((name, indexes[name], each.contents.flags, _sockaddr_text(each.contents.address)))
            each = each.contents.next
    finally:
        libc.freeifaddrs(first)
    return rows


def _sockaddr_text(address: object) -> str | None:
    """Return the address in a `struct sockaddr *`, if it is an IPv4 or IPv6 one."""
    if not address:
        return None
    # BSD's begins with its length and then the family, Linux's with the family in two bytes.
    family = address[0] if sys.platform == "linux" else address[1]  # type: ignore[index]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, bytes(address[4:8]))  # type: ignore[index]
    if family == socket.AF_INET6:
        return socket.inet_ntop(family, bytes(address[8:24]))  # type: ignore[index]
    return None
