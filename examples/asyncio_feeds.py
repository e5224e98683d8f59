"""Receive several feeds as tasks of asyncio, with a report each second and a clean end on Ctrl-C or SIGTERM.

asyncio_feeds.py [GROUP PORT INTERFACE, and so on for each feed]
"""

import asyncio
import signal
import sys

import multicast

WORDS = sys.argv[1:] or ["239.255.64.6", "5000", "lo", "239.255.64.7", "5000", "lo"]


async def receive(rx):
    async for _batch in rx:  # until it is closed; other tasks have their turn after 16 batches or 1 ms
        pass  # your decoder, for each view in the batch


async def report(receivers):
    while True:
        await asyncio.sleep(1)
        print(", ".join(f"{group}: {rx.stats().datagrams}" for group, rx in receivers))


async def main():
    feeds = zip(WORDS[0::3], WORDS[1::3], WORDS[2::3], strict=True)
    receivers = [(group, multicast.open_receiver(group, int(port), interface=name)) for group, port, name in feeds]
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: [rx.close() for _, rx in receivers])
    reporting = asyncio.create_task(report(receivers))
    async with asyncio.TaskGroup() as tasks:
        for _, rx in receivers:
            tasks.create_task(receive(rx))
    reporting.cancel()
    for group, rx in receivers:
        print(f"{group}: {rx.stats().datagrams} datagrams, {rx.stats().drops} dropped")


asyncio.run(main())
