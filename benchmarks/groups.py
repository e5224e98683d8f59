"""What a receiver's groups cost, in a network namespace where it may join a thousand.

Owns the namespace, as a process of its own, and the receivers in it. Must not raise a limit anywhere else.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import bare_c
import machine
from settings import Settings

import multicast
from multicast import bench
from multicast._options_py import memory_of
from multicast.bench import Contender, in_batches

COUNTS = (1, 10, 100, 1_000)
DATAGRAMS, SIZE, BATCH = 256, 200, 64
FIRST = ipaddress.ip_address("239.255.128.0")
LIMIT = pathlib.Path("/proc/sys/net/ipv4/igmp_max_memberships")


def measure(settings: Settings) -> dict[str, object]:
    """Return the times of all, and what sending took, measured by this file as a program in a namespace of its own."""
    missing = [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]
    if missing:
        return {"left_out": f"not found in PATH: {', '.join(missing)}"}
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if (tried := subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)).returncode:
        return {"left_out": f"no network namespace of its own: {tried.stderr.strip()}"}
    asked = json.dumps([settings.quick, settings.full, settings.seed])
    done = subprocess.run([*unshare, sys.executable, __file__, asked], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{__file__} ended with exit code {done.returncode}; what it said is above")
    return json.loads(done.stdout)


class GroupQueue:
    """A receiver of many groups, and datagrams to fill it with, each to another one of them."""

    def __init__(
        self, groups: int, isolation: bool, sender: socket.socket, closing: contextlib.ExitStack, alone: bool = False
    ) -> None:
        names = [str(FIRST + number) for number in range(groups)]
        options = {"interface": "lo", "isolation": isolation, "batch_size": BATCH, "receive_buffer": 4 << 20}
        with bench.joined_socket() as probe:
            port = probe.getsockname()[1]
        self.receiver = closing.enter_context(
            multicast.open_receiver(names[0] if alone else names, port, timeout=0, **options)
        )
        self.socket, self.count = self.receiver.socket, DATAGRAMS
        self._sender, self._payload = sender, os.urandom(SIZE)
        self._to = [(names[number * groups // DATAGRAMS % groups], port) for number in range(DATAGRAMS)]
        self._charge = None
        self.filled_in: list[float] = []  # ns a datagram

    def fill(self) -> None:
        sendto, payload = self._sender.sendto, self._payload
        begin = time.perf_counter_ns()
        for address in self._to:
            sendto(payload, address)
        self.filled_in.append((time.perf_counter_ns() - begin) / DATAGRAMS)
        if self._charge is None:
            time.sleep(0.01)
            self._charge = memory_of(self.socket)
        deadline = time.monotonic() + bench.LATE
        while memory_of(self.socket) != self._charge:
            if time.monotonic() > deadline:
                raise bench.TooShortError(f"not all datagrams came to the receiver of {self.receiver.memberships()}")

    def left(self) -> bool:
        try:
            self.receiver.recv_batch(0)
        except BlockingIOError:
            return False
        return True


def inside(settings: Settings) -> dict[str, object]:
    """Measure, in a namespace where nothing is anybody else's."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    LIMIT.write_text(f"{2 * max(COUNTS)}\n", "ascii")
    rounds = settings.rounds(60)
    with contextlib.ExitStack() as closing, machine.pinned():
        sender = closing.enter_context(multicast.genSocket())
        multicast.set_multicast_interface(sender, "lo")
        multicast.set_multicast_ttl(sender, 0)
        queues, taking_part = {}, []
        for groups in COUNTS:
            isolated = GroupQueue(groups, True, sender, closing)
            drain = in_batches(isolated.receiver, DATAGRAMS)
            taking_part.append(Contender(f"{multicast.BACKEND} {groups}", isolated, drain))
            open_to_all = queues[groups] = GroupQueue(groups, False, sender, closing)
            drain = in_batches(open_to_all.receiver, DATAGRAMS)
            taking_part.append(Contender(f"{multicast.BACKEND}, isolation=False {groups}", open_to_all, drain))
            taking_part.append(Contender(f"C recvmmsg {groups}", open_to_all, bare_c.recvmmsg(open_to_all, BATCH)))
        # The group that is not in a list is what its socket is bound to: the kernel need not tell where each went.
        alone = GroupQueue(1, True, sender, closing, alone=True)
        drain = in_batches(alone.receiver, DATAGRAMS)
        taking_part.append(Contender(f"{multicast.BACKEND}, one group alone 1", alone, drain))
        times = bench.take_turns(taking_part, bench.rounds(rounds), settings.seed)
    sending = {f"sendto, through to the queue {groups}": queue.filled_in[-rounds:] for groups, queue in queues.items()}
    return {"rounds": rounds, "times": times, "sending": sending}


if __name__ == "__main__":
    print(json.dumps(inside(Settings(*json.loads(sys.argv[1])))))
