"""python -m multicast: what a bug report needs; with `demo`: see it work; with `bench`: how fast it is here.

Owns the command line. Must not hold what a command does.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys

from . import BACKEND, BACKEND_REASON, __file__, __version__, capabilities


def report() -> str:
    """Return version, backend and why, Python and system, and what works there: the text for a bug report."""
    return "\n".join(
        (
            f"multicast-skt {__version__} ({__file__})",
            f"backend       {BACKEND}: {BACKEND_REASON}",
            f"python        {platform.python_implementation()} {platform.python_version()} ({sys.executable})",
            f"system        {platform.platform()}",
            "",
            *_what_works(),
        )
    )


def _what_works() -> list[str]:
    try:
        found = capabilities()
    except OSError as error:  # the rest of the report is worth as much
        return [f"what works here could not be tried: {error}"]
    return [f"{each.name:21}  {'yes' if each else 'no':3}  {each.why}".rstrip() for each in found]


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 where it failed, 2 for wrong usage, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m multicast",
        description="UDP multicast for Python at full rate. Without a command: version, backend, system, what works.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command")
    demo = commands.add_parser(
        "demo",
        help="receive a synthetic market-data feed on the loopback interface",
        description="A sender process publishes MoldUDP64 datagrams on the loopback interface (TTL 0) as fast as it "
        "can; this process receives them, first by batches, then one at a time through the socket module, and "
        "accounts for every one. Exit code 1: the account does not close.",
    )
    demo.add_argument("--seconds", type=float, default=10.0, help="for both receivers together (default: 10)")
    demo.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    bench = commands.add_parser(
        "bench",
        help="how fast this backend empties a queue, beside the socket module",
        description="A queue on the loopback interface (TTL 0) is filled, and emptied in turns by this backend and by "
        "the socket module: ns a datagram. The full benchmark is in the project's repository: python3 dev.py bench. "
        "Exit code 1: one of them did not take every datagram.",
    )
    bench.add_argument("--seconds", type=float, default=5.0, help="for all of it (default: 5)")
    bench.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    given = parser.parse_args(arguments)
    if given.command is None:
        print(report())
        return 0
    if not 1 <= given.seconds <= 3600:
        commands.choices[given.command].error(f"--seconds is from 1 to 3600, not {given.seconds}")
    from . import bench as benchmark
    from . import demo as demonstration

    run = {"demo": demonstration.run, "bench": benchmark.run}[given.command]
    try:
        return run(given.seconds, as_json=given.json)
    except KeyboardInterrupt:
        return 130


def run() -> int:
    """Run as a program; where nobody reads any more what it prints, end as quietly as others do (128 + SIGPIPE)."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there at exit
        return 141
    return code


if __name__ == "__main__":
    sys.exit(run())
