"""Runs inside a host of tests/rig.py: receives and sends with the package as it is told on stdin.

Scripts that are named on the command line know more commands. Owns no judgement: what came is told, the test decides.
Must not wait without a deadline.
"""

import importlib
import ipaddress
import socket
import sys
import time

import commands

import multicast

receivers = {}
tracked = {}  # by the same names: memberships that are not the receiver's own
senders = {}
opened = {}


def given(options):
    """Put an Interface where a test, which can't send one, named it."""
    wanted = options.get("interface")
    if isinstance(wanted, dict):
        found = [each for each in multicast.interfaces() if each.name == wanted["Interface"]]
        options["interface"] = found[0]
    return options


def do_open(name, group, port, options):
    receivers[name] = multicast.open_receiver(group, port, **given(options))
    opened[name] = receivers[name].memberships


def do_plain(name, address, port, receive_buffer):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if receive_buffer is not None:
        multicast.set_receive_buffer(sock, receive_buffer)
    sock.bind((address, port))
    receivers[name] = multicast.Receiver(sock)


def do_join(name, group, options):
    receivers[name].join(group, **given(options))


def do_leave(name, group, options):
    receivers[name].leave(group, **given(options))


def do_verb(name, verb, arguments, options):
    """A verb of the package on a receiver's socket."""
    return told(getattr(multicast, verb)(receivers[name].socket, *arguments, **given(options)))


def do_method(name, method, arguments, options):
    """A method of a receiver."""
    return told(getattr(receivers[name], method)(*arguments, **given(options)))


def do_memberships(name):
    return told(receivers[name].memberships)


def do_tracked(name, method, arguments, options):
    """What a receiver has inside to change its memberships, and what it joined by that since it was opened."""
    since = [each for each in receivers[name].memberships if each not in opened[name]]
    if method == "list":
        return told(tuple(since))
    if method == "indexes":
        return {each.index: each.interface for each in since}
    return receivers[name]._change(method, *arguments, **given(options))


def told(value):
    if isinstance(value, tuple):
        return [told(each) for each in value]
    return value.as_dict() if hasattr(value, "as_dict") else value


def do_until(name, last, seconds):
    came = []
    deadline = time.monotonic() + seconds
    while last not in came:
        try:
            batch = receivers[name].recv_batch(timeout=max(0.001, deadline - time.monotonic()))
        except TimeoutError as error:
            raise TimeoutError(error.errno, f"{last!r} did not come; came: {came}; {error}") from None
        came += [bytes(view).decode() for view in batch]
    return came


def do_told(name, count, seconds):
    """What the kernel told of each of so many datagrams: all columns, by the name of what tells it."""
    came = []
    while len(came) < count:
        batch = receivers[name].recv_batch(timeout=seconds)
        addresses = batch.source_addresses.tolist(), batch.destination_addresses.tolist()
        for i, view in enumerate(batch):
            came.append(
                {
                    "payload": bytes(view).decode(),
                    "source": batch.source(i),
                    "source_address": str(ipaddress.ip_address(bytes(addresses[0][i]))),
                    "source_port": batch.source_ports[i],
                    "destination": batch.destination(i),
                    "destination_address": str(ipaddress.ip_address(bytes(addresses[1][i]))),
                    "interface": batch.interface(i),
                    "ttl": batch.ttls[i],
                    "tos": batch.tos[i],
                    "timestamp_kind": batch.timestamp_kind(i),
                    "age": time.time_ns() - batch.timestamps[i],
                }
            )
    return came


def do_option(source, to, port, level, option, value):
    """Set an option of the socket that sends from there to there."""
    if (source, to, port) not in senders:
        senders[source, to, port] = sender(source, to, port)
    senders[source, to, port].socket.setsockopt(level, option, value)


def do_stats(name):
    return receivers[name].stats().as_dict()


def do_close(name):
    receivers.pop(name).close()


def do_send(port, datagrams):
    for source, to, payload in datagrams:
        if (source, to, port) not in senders:
            senders[source, to, port] = sender(source, to, port)
        senders[source, to, port].send(payload.encode())


def sender(source, to, port):
    if ipaddress.ip_address(to).is_multicast:
        return multicast.open_sender(to, port, interface=source, ttl=1)
    sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    sock.connect((to, port))
    return sock


def main(more=None):
    known = globals() | (more or {})
    for script in sys.argv[1:]:
        known |= vars(importlib.import_module(script))
    commands.serve(known, [multicast.BACKEND, multicast.__file__])
    for each in [*receivers.values(), *senders.values()]:
        each.close()


if __name__ == "__main__":
    main()
