"""Record a feed as pcap, or send that again at its own pace: recorder.py [record|replay FILE GROUP PORT INTERFACE]."""

import signal
import struct
import sys
import time

import multicast

WHAT, FILE, GROUP, PORT, INTERFACE = sys.argv[1:] or ["record", "feed.pcap", "239.255.64.14", "5000", "lo"]
BEGIN = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 228)  # times in ns; packets begin with IPv4
PACKET = struct.Struct("<IIII")  # seconds, nanoseconds, length kept, length
HEADERS = struct.Struct(">HHHHBBH4s4sHHHH")  # IPv4 and UDP, both without a checksum


def record():
    options = {"columns": multicast.COLUMNS, "timestamps": "software", "datagram_size": 65_507}
    with multicast.open_receiver(GROUP, int(PORT), interface=INTERFACE, **options) as rx, open(FILE, "wb") as file:
        signal.signal(signal.SIGINT, lambda *_: rx.close())
        file.write(BEGIN)
        for batch in rx:
            sources, groups = bytes(batch.source_addresses), bytes(batch.destination_addresses)
            for i, (view, when) in enumerate(zip(batch, batch.timestamps, strict=True)):
                ends = sources[4 * i : 4 * i + 4], groups[4 * i : 4 * i + 4], batch.source_ports[i], int(PORT)
                size = HEADERS.size + len(view)
                headers = HEADERS.pack(0x4500 + batch.tos[i], size, 0, 0, batch.ttls[i], 17, 0, *ends, size - 20, 0)
                file.write(PACKET.pack(*divmod(when, 10**9), size, size) + headers + view)


def replay(start=None):
    with multicast.open_sender(GROUP, int(PORT), interface=INTERFACE, ttl=0) as tx, open(FILE, "rb") as file:
        file.read(len(BEGIN))
        while begins := file.read(PACKET.size):
            seconds, ns, size, _ = PACKET.unpack(begins)
            start = start or time.monotonic() - seconds - ns / 1e9
            time.sleep(max(0, start + seconds + ns / 1e9 - time.monotonic()))
            tx.send(file.read(size)[HEADERS.size :])


record() if WHAT == "record" else replay()
