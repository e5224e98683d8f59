"""`multicast demo`: see it work.

Owns its arguments. Must not hold the demonstration, which is in `multicast.demo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import add_json, seconds

if TYPE_CHECKING:
    import argparse

SUMMARY = "receive a synthetic market-data feed on the loopback interface"
DESCRIPTION = """\
A sender process publishes MoldUDP64 datagrams on the loopback interface (TTL
0) as fast as it can; this process receives them, first by batches, then one
at a time through the socket module, and accounts for every one. Exit code 1:
the account does not close."""
EPILOG = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be typed."""
    parser.add_argument(
        "--seconds", type=seconds(1, 3600), default=10.0, help="for both receivers together (default: 10)"
    )
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Run the demonstration."""
    from .. import demo

    return demo.run(given.seconds, as_json=given.json)
