"""Runs inside a host of tests/rig.py: receives and sends with multicast_expert, another package, as it is told.

Owns no judgement. Must not import the package under test, nor go on without multicast_expert: that is a failure.
"""

import socket
import time

import commands
import multicast_expert

receivers = {}
senders = {}


def family(group):
    return socket.AF_INET6 if ":" in group else socket.AF_INET


def do_open(name, groups, port, iface, sources):
    receivers[name] = multicast_expert.McastRxSocket(
        family(groups[0]), mcast_ips=groups, port=port, iface=iface, source_ips=sources
    ).__enter__()


def do_until(name, last, seconds):
    came = []
    deadline = time.monotonic() + seconds
    while last not in came:
        receivers[name].settimeout(max(0.001, deadline - time.monotonic()))
        payload = receivers[name].recv()
        if payload is None:  # which is how it says that the time is over
            raise TimeoutError(f"{last!r} did not come; came: {came}")
        came.append(payload.decode())
    return came


def do_sender(name, groups, iface):
    """Open a sender; return the address of its own that it chose."""
    senders[name] = multicast_expert.McastTxSocket(family(groups[0]), mcast_ips=groups, iface=iface).__enter__()
    return senders[name].getsockname()[0].partition("%")[0]


def do_send(name, port, datagrams):
    for group, payload in datagrams:
        senders[name].sendto(payload.encode(), (group, port))


commands.serve(globals(), multicast_expert.__name__)
for each in [*receivers.values(), *senders.values()]:
    each.__exit__(None, None, None)
