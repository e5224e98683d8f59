"""Runs inside a host of tests/rig.py: receives from a socket that a `Watch` heals, as a receiver would.

A command is a line of JSON, and so is its answer. Owns the plainest memberships there can be, and no judgement. Must
not wait without a deadline, and ends when its stdin does.
"""

import contextlib
import json
import logging
import select
import signal
import socket
import sys
import time

import multicast
from multicast import _watch

SECONDS = 15
watched = {}
log = []


class Handler(logging.Handler):
    def emit(self, record):
        log.append(record.getMessage())


class Membership:
    def __init__(self, group, index, sources):
        self.group, self.index, self.sources = group, index, sources


class Memberships:
    """Joins by the package's verbs, and knows what it joined."""

    def __init__(self):
        self.names, self.joined, self.refuse = {}, [], 0

    def join(self, sock, group, interface, sources=()):
        index = socket.if_nametoindex(interface)
        for source in sources or (None,):
            multicast.join_group(sock, group, index, source)
        self.names[index] = interface
        self.joined.append(Membership(group, index, sources))

    def indexes(self):
        return {each.index: self.names[each.index] for each in self.joined}

    def list(self):
        return tuple(self.joined)

    def lose(self, sock, index):
        for each in self.joined:
            if each.index == index:
                for source in each.sources or (None,):
                    with contextlib.suppress(OSError):
                        multicast.leave_group(sock, each.group, index, source)

    def rejoin(self, sock, old_index, new_index):
        if self.refuse:
            self.refuse -= 1
            raise OSError(99, "refused, for the test")
        for each in self.joined:
            if each.index == old_index:
                for source in each.sources or (None,):
                    with contextlib.suppress(OSError):  # the kernel may have nothing of it any more
                        multicast.leave_group(sock, each.group, old_index, source)
                for source in each.sources or (None,):
                    multicast.join_group(sock, each.group, new_index, source)
                each.index = new_index
        self.names[new_index] = self.names[old_index]


class Watched:
    def __init__(self, port, joins, **options):
        ipv6 = ":" in joins[0][0]
        self.sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        multicast.skt._backend.limit_to_joined(self.sock)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(("", port))
        self.sock.setblocking(False)
        self.memberships = Memberships()
        for group, interface, *sources in joins:
            self.memberships.join(self.sock, group, interface, sources)
        self.silences = []
        if "silence" in options:
            options["on_silence"] = lambda silence: self.silences.append(silence.as_dict())
        self.watch = _watch.Watch(self.memberships, fd=self.sock.fileno(), **options)
        self.came, self.delivered, self.handled = [], 0, 0

    def handle(self):
        self.handled = time.monotonic()
        self.watch.handle(self.sock, self.delivered)

    def receive(self, seconds):
        """Take one step of a receiver's: a datagram, or what there is to handle."""
        if time.monotonic() - self.handled > 0.1:
            self.handle()
        try:
            self.came.append(self.sock.recv(2048).decode())
            self.delivered += 1
        except BlockingIOError:
            poll = select.poll()
            poll.register(self.watch.fileno(), select.POLLIN)
            poll.register(self.sock, select.POLLIN)
            if not poll.poll(seconds * 1000):
                raise TimeoutError(f"nothing to receive or to handle: {self.state()}") from None
            self.handle()

    def state(self):
        said, log[:] = log[:], []
        return {
            "rejoins": self.watch.rejoins,
            "links_lost": self.watch.links_lost,
            "indexes": {str(index): name for index, name in self.memberships.indexes().items()},
            "silences": self.silences,
            "log": said,
        }


def do_open(name, **arguments):
    watched[name] = Watched(**arguments)


def do_join(name, group, interface):
    watched[name].memberships.join(watched[name].sock, group, interface)


def do_handle(name):
    """Handle what there is, once; a receiver that is not told to, does not."""
    each = watched[name]
    readable = bool(select.select([each.watch.fileno()], [], [], 0)[0])
    each.handle()
    return {"readable": readable, **each.state()}


def until(each, found):
    deadline = time.monotonic() + SECONDS
    while not found():
        each.receive(max(0, deadline - time.monotonic()))
    came, each.came = each.came, []
    return {"came": came, **each.state()}


def do_until(name, last):
    """Receive, and handle what there is, until this payload is there."""
    each = watched[name]
    return until(each, lambda: each.came[-1:] == [last])


def do_count(name, what, number):
    """Receive, and handle what there is, until the watch has counted so many."""
    each = watched[name]
    return until(each, lambda: getattr(each.watch, what) >= number)


def do_refuse(name, times):
    """Have joining again fail so many times."""
    watched[name].memberships.refuse = times


def do_interrupt(name):
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
    watched[name].watch._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def do_read_few(name):
    """Have a handful of messages be as many as are read in one go."""
    _watch._MESSAGES = 20


def do_close(name):
    each = watched.pop(name)
    each.watch.close()
    each.sock.close()


def main():
    signal.alarm(200)  # whatever goes wrong: this ends
    logging.getLogger("multicast").addHandler(Handler())
    logging.getLogger("multicast").propagate = False
    answer = {"ok": [multicast.BACKEND, multicast.__file__]}
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": globals()[f"do_{command.pop('do')}"](**command)}
        except Exception as error:
            answer = {"error": [type(error).__name__, getattr(error, "errno", None), str(error)]}
        print(json.dumps(answer), flush=True)
    for name in list(watched):
        do_close(name)


main()
