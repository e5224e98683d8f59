"""Runs inside a host of tests/rig.py: what host.py does, with receivers that heal, and listen for silences.

Owns how they tell what they do, and how a watch is disturbed. Must not judge, nor wait without a deadline.
"""

import ctypes
import logging
import os
import select
import socket
import time
from pathlib import Path

import host

import multicast
from multicast import _watch

watches = {}
silences = {}
log = []


class Log(logging.Handler):
    def emit(self, record):
        log.append(record.getMessage())


class Watch(_watch.Watch):
    made = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        Watch.made = self


def do_open(name, group, port, options):
    silences[name], Watch.made = [], None
    if "silence" in options:
        options["on_silence"] = lambda silence: silences[name].append(silence.as_dict())
    host.do_open(name, group, port, options)
    watches[name] = Watch.made


def state(name):
    stats, said = host.receivers[name].stats(), log[:]
    log.clear()
    return {
        "links_lost": stats.links_lost,
        "rejoins": stats.rejoins,
        "silences": silences[name],
        "joined": sorted({(each.index, each.interface) for each in host.receivers[name].memberships}),
        "log": said,
    }


def do_handle(name):
    """Ask for what is there, which is nothing to receive: so what there is to handle is handled."""
    receiver = host.receivers[name]
    readable = bool(select.select([receiver.fileno()], [], [], 0)[0])
    try:
        batch = receiver.recv_batch(0)
    except BlockingIOError:
        return {"readable": readable, **state(name)}
    raise AssertionError(f"{[bytes(view) for view in batch]} came, and nothing was to come")


def do_count(name, what, number, seconds):
    """Receive until so many are counted; what comes meanwhile is let go."""
    deadline = time.monotonic() + seconds
    while getattr(host.receivers[name].stats(), what) < number:
        try:
            host.receivers[name].recv_batch(0.01)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} is not {number}: {state(name)}") from None
    return state(name)


def do_descriptors():
    return len(os.listdir("/proc/self/fd"))


def do_netlink():
    """How many sockets of netlink this process has."""
    lines = Path("/proc/self/net/netlink").read_text().splitlines()[1:]
    links = [os.readlink(each.path) for each in os.scandir("/proc/self/fd") if each.is_symlink()]
    return len({f"socket:[{line.split()[-1]}]" for line in lines}.intersection(links))


def do_go(to):
    """Take this thread to another network namespace, where nothing of the receivers is."""
    with open(to) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000) < 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


# Disturbing --------------------------------------------------------------------------------------------------------


def do_refuse(name, times):
    """Have joining again fail so many times."""
    memberships = watches[name]._memberships
    rejoin = memberships.rejoin

    def refusing(*arguments):
        nonlocal times
        times -= 1
        if times < 0:
            return rejoin(*arguments)
        raise OSError(99, "refused, for the test")

    memberships.rejoin = refusing


def do_interrupt():
    """Have the next message about a link that went end what is being handled, as a signal's handler may."""
    read = _watch.link_events

    def interrupted(data):
        events = list(read(data))
        if any(gone for gone, _, _ in events):
            _watch.link_events = read
            raise RuntimeError("as a signal's handler may")
        return events

    _watch.link_events = interrupted


def do_small_buffer(name):
    """Have the kernel lose messages about links, which it has room for by the hundred else."""
    watches[name]._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def do_read_few():
    """Have a handful of messages be as many as are read in one go."""
    _watch._MESSAGES = 20


multicast.skt.Watch = Watch
logging.getLogger("multicast").addHandler(Log())
logging.getLogger("multicast").propagate = False
host.main(globals())
