"""`multicast bench`: how fast this backend is here.

Owns its arguments. Must not hold the benchmark, which is in `multicast.bench`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import add_json, seconds

if TYPE_CHECKING:
    import argparse

SUMMARY = "how fast this backend empties a queue, beside the socket module"
DESCRIPTION = """\
A queue on the loopback interface (TTL 0) is filled, and emptied in turns by
this backend and by the socket module: ns a datagram. The full benchmark is in
the project's repository: python3 dev.py bench. Exit code 1: one of them did
not take every datagram."""
EPILOG = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    parser.add_argument("--seconds", type=seconds(1, 3600), default=5.0, help="for all of it (default: 5)")
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Run the benchmark."""
    from .. import bench

    return bench.run(given.seconds, as_json=given.json)
