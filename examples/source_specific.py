"""Receive a feed from named sources alone; fall back to a filter where the kernel takes no more of them.

source_specific.py [GROUP PORT INTERFACE SOURCE...]
"""

import collections
import errno
import signal
import sys

import multicast

GROUP, PORT, INTERFACE, *SOURCES = sys.argv[1:] or ["239.255.64.2", "5000", "lo", "127.0.0.1"]


def open_feed():
    """Join from the sources (IGMPv3: the network keeps the others away), else from any, and filter in the kernel."""
    options = {"interface": INTERFACE, "columns": "source"}
    try:
        return multicast.open_receiver(GROUP, int(PORT), source=SOURCES, **options)
    except OSError as error:
        if error.errno == errno.ENODEV:  # the error lists the interfaces there are
            raise SystemExit(str(error)) from None
        if error.errno != errno.ENOBUFS:  # the limit and its value are in the error: net.ipv4.igmp_max_msf
            raise
        print(f"{error}\nfalling back to a filter", file=sys.stderr)
        return multicast.open_receiver(GROUP, int(PORT), filter=multicast.Filter(source=SOURCES), **options)


came = collections.Counter()
with open_feed() as rx:
    signal.signal(signal.SIGINT, lambda *_: rx.close())
    for each in rx.memberships:
        print(f"{each.group} on {each.interface}: {each.mode} {', '.join(each.sources) or 'nobody'}")
    for batch in rx:
        came.update(batch.source(i)[0] for i in range(len(batch)))
for source, datagrams in came.most_common():
    print(f"{datagrams} from {source}")
