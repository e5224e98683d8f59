"""Runs inside a host of tests/rig.py: sends to several groups at a steady pace, also while a link is not there.

A datagram has the number of its feed, its own number in that, and when it was sent: ns of the monotonic clock, which
is one for all hosts. Owns that pace. Must not give up: what can't be sent is tried again, and takes no number.
"""

import struct
import threading
import time

import commands

import multicast

PAYLOAD = struct.Struct("!IQQ")
AGAIN = 0.01  # seconds until a sender is made again that could not send
feeds = []
stopped = threading.Event()


class Feed:
    def __init__(self, number, source, group, port):
        self.number, self.where = number, (group, port, source)
        self.sent, self.sender, self.again = 0, None, 0.0

    def send(self):
        if self.sender is None and time.monotonic() < self.again:
            return
        try:
            if self.sender is None:
                group, port, source = self.where
                self.sender = multicast.open_sender(group, port, interface=source)
            self.sender.send(PAYLOAD.pack(self.number, self.sent, time.monotonic_ns()))
            self.sent += 1
        except OSError:
            self.again = time.monotonic() + AGAIN
            self.close()

    def close(self):
        if self.sender is not None:
            self.sender.close()
            self.sender = None


def pace(seconds):
    due = time.monotonic()
    while not stopped.is_set():
        for each in feeds:
            each.send()
        due = max(due + seconds, time.monotonic() - seconds)
        time.sleep(max(0.0, due - time.monotonic()))
    for each in feeds:
        each.close()


def do_start(wanted, port, seconds):
    """Send to each of these groups, from this own address, every so many seconds."""
    feeds.extend(Feed(number, source, group, port) for number, (group, source) in enumerate(wanted))
    thread.append(threading.Thread(target=pace, args=[seconds]))
    thread[0].start()


thread = []
commands.serve(globals(), [multicast.BACKEND, multicast.__file__])
stopped.set()
for each in thread:
    each.join()
