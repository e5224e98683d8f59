"""Stay on one line of a feed, and change over to the other when it is silent: heartbeats are data, too.

watchdog.py [SECONDS GROUP PORT INTERFACE (of line A) GROUP PORT INTERFACE (of line B)]
"""

import contextlib
import itertools
import sys

import multicast

SECONDS, *FEEDS = sys.argv[1:] or ["3", "239.255.64.12", "5000", "lo", "239.255.64.13", "5000", "lo"]


class SilentError(Exception):
    """Nothing came on a line for too long."""


def on_silence(silence):
    """Tell a dead line from a quiet one, and leave the loop that receives."""
    if silence.dead:  # here is where to look: an interface is down, or the kernel had lost what was joined
        states = ", ".join(f"{name} is {state}" for name, state in silence.interfaces)
        raise SilentError(f"dead: {states}; joined: {silence.joined}")
    raise SilentError("quiet: all is well on this host; ask the sender, the switch, the source filter")


lines = itertools.cycle([("A", *FEEDS[:3]), ("B", *FEEDS[3:])])
with contextlib.suppress(KeyboardInterrupt):
    for line, group, port, interface in lines:
        options = {"interface": interface, "silence": float(SECONDS), "on_silence": on_silence}
        with multicast.open_receiver(group, int(port), **options) as rx:
            print(f"line {line}: joined {group} on {interface}")
            try:
                for _batch in rx:
                    pass  # your decoder, for each view in the batch
            except SilentError as error:
                print(f"line {line}: {error}; {rx.stats().datagrams} datagrams until then")
