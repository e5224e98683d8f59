"""Runs inside a host of tests/rig.py: sends trains, and listens to what comes of them, on a socket or on the link.

A command is a line of JSON, and so is its answer. Owns no judgement: what came is told, the test decides. Must not wait
without a deadline, and ends when its stdin does.
"""

import ctypes
import fcntl
import json
import signal
import socket
import struct
import sys
import threading
import zlib
from pathlib import Path

import commands

import multicast
from multicast import _sending

sys.path.append(str(Path(__file__).parent.parent))
from trains import END, Listener, payloads

PATIENCE = _sending.PATIENCE
PACKET_VNET_HDR, SOL_PACKET = 15, 263
ETH_P_ALL = 3

senders = {}
listeners = {}


def do_sender(name, to, port, options):
    """Open a sender: to a group by the package, to a host by a socket of our own."""
    if to in ("127.0.0.1", "::1"):
        sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((to, port))
        senders[name] = multicast.Sender(sock, **options)
    else:
        senders[name] = multicast.open_sender(to, port, **options)


def do_patience(seconds):
    """Have the senders that are opened from now on, until `close`, wait for so long for a queue."""
    _sending.PATIENCE = round(seconds * 1e9)


def do_option(name, level, option, value):
    senders[name].socket.setsockopt(level, option, value)


def do_send(name, lengths, seed=0):
    """Send until an error: what each call returned, and the error if there was one."""
    left, counts = payloads(lengths, seed), []
    try:
        while left:
            counts.append(senders[name].send_batch(left))
            left = left[counts[-1] :]
    except OSError as error:
        return {"counts": counts, "errno": error.errno, "text": str(error)}
    return {"counts": counts, "errno": None, "text": ""}


def do_waited(name):
    return [senders[name].waits, senders[name].waited_ns]


def do_end(name):
    senders[name].send(END)


def do_listen(name, address, port, link, uncut):
    listeners[name] = Listener(address, port, socket.if_nametoindex(link), uncut=uncut)


def told(data):
    return [len(data), zlib.crc32(data)]


def do_came(name):
    """Tell what came until END: length and checksum of each datagram, by train."""
    return [[told(data) for data in train] for train in listeners[name].until_end()]


def do_watch(name, link):
    """Watch all that arrives over a link, as a capture does, before any protocol has seen it."""
    watching = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    watching.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    watching.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    watching.settimeout(10)
    watching.bind((link, ETH_P_ALL))
    listeners[name] = watching


def do_seen(name, port):
    """Tell of each packet to the port, until END: its payload's length, and to what length it is to be cut (0: isn't).

    Fragments are told of as the bytes that each carries.
    """
    seen = []
    fragments = set()
    while True:
        data, (_, protocol, kind, *_) = listeners[name].recvfrom(1 << 17)
        gso_type, _, cut = struct.unpack_from("=xBHH", data)
        packet = data[24:]  # past struct virtio_net_hdr and the link's own header
        if kind == 4:  # PACKET_OUTGOING
            continue
        if protocol == 0x0800 and packet[9] == 17:
            size, flags = struct.unpack_from("!H2xH", packet, 2)
            if flags & 0x3FFF:
                key = packet[4:6]
                if flags & 0x1FFF or packet[22:24] == port.to_bytes(2, "big"):
                    if not flags & 0x1FFF:
                        fragments.add(key)
                    if key in fragments:
                        seen.append([size - 20, 0])
                continue
            udp = packet[20:size]
        elif protocol == 0x86DD and packet[6] == 17:
            udp = packet[40 : 40 + struct.unpack_from("!H", packet, 4)[0]]
        else:
            continue
        if udp[2:4] == port.to_bytes(2, "big"):
            if udp[8:] == END:
                return seen
            seen.append([len(udp) - 8, cut if gso_type else 0])


def do_checksums(link, enabled):
    """Switch the checksums made by the device on or off: ETHTOOL_STXCSUM (ethtool -K ... tx)."""
    value = ctypes.create_string_buffer(struct.pack("=II", 0x17, enabled))
    request = struct.pack("@16sP8x", link.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8946, request)  # SIOCETHTOOL


class Interrupted(Exception):
    """What a handler raises here."""


def send_for_ever(sender, ended):
    while True:
        try:
            sender.send_batch([bytes(1_000)] * 5)
        except OSError as error:
            ended.append(error.errno)
            return


def after_a_refusal(before, call):
    """Do something in another thread, once the kernel has refused a datagram."""

    def wait():
        while refusals() == before:
            pass
        call()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def do_closed(name):
    """Send until the sender is closed by another thread, while it waits."""
    thread, ended = after_a_refusal(refusals(), senders[name].close), []
    send_for_ever(senders[name], ended)
    thread.join()
    return ended


def do_interrupted(name):
    """Send until a signal's handler raises, while it waits."""

    def handler(*_):
        raise Interrupted

    signal.signal(signal.SIGUSR1, handler)
    main_thread = threading.get_ident()
    thread = after_a_refusal(refusals(), lambda: signal.pthread_kill(main_thread, signal.SIGUSR1))
    ended = []
    try:
        send_for_ever(senders[name], ended)
    except Interrupted:
        ended.append("interrupted")
    thread.join()
    return ended


def do_counted(name):
    """Send until it gives up, and count in this thread as long as it waits."""
    ended, turns, before = [], 0, refusals()
    thread = threading.Thread(target=send_for_ever, args=(senders[name], ended))
    thread.start()
    while refusals() == before:
        assert thread.is_alive(), ended
    while thread.is_alive():
        turns += 1
    return {"ended": ended, "turns": turns}


def refusals():
    """How many datagrams the kernel has refused for want of buffers (SndbufErrors), over either protocol."""
    with open("/proc/net/snmp") as file:
        names, values = (line.split() for line in file if line.startswith("Udp:"))
    with open("/proc/net/snmp6") as file:
        ipv6 = next(int(line.split()[1]) for line in file if line.startswith("Udp6SndbufErrors"))
    return int(values[names.index("SndbufErrors")]) + ipv6


def do_refusals():
    return refusals()


def do_close():
    for each in [*listeners.values(), *senders.values()]:
        each.close()
    _sending.PATIENCE = PATIENCE
    listeners.clear()
    senders.clear()


def main():
    commands.keep_to_one_cpu()
    answer = {"ok": [multicast.BACKEND, multicast.__file__]}
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        signal.alarm(100)  # whatever goes wrong: this ends
        command = json.loads(line)
        try:
            answer = {"ok": globals()[f"do_{command.pop('do')}"](**command)}
        except Exception as error:
            answer = {"error": [type(error).__name__, getattr(error, "errno", None), str(error)]}
        print(json.dumps(answer), flush=True)
    do_close()


main()
