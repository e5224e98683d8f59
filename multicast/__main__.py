"""python -m multicast, and the program `multicast`: which commands there are, and how they end.

Owns the choice of the command and the exit codes. Must not hold what a command does: that is in `multicast.cli`.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from . import __version__
from .cli import bench, demo, doctor, interfaces, listen, report, send
from .cli.arguments import add_json

COMMANDS = {"listen": listen, "send": send, "doctor": doctor, "interfaces": interfaces, "demo": demo, "bench": bench}
EXIT_CODES = (
    "exit codes: 0, it went well; 1, it failed; 2, wrong usage; 130, ended by Ctrl-C; 141, nobody reads its output any "
    "more. The command's own --help says what failing is."
)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Read what was typed; ends the process for --help, --version and wrong usage."""
    program = "multicast" if os.path.basename(sys.argv[0]) == "multicast" else "python -m multicast"
    parser = argparse.ArgumentParser(
        prog=program,
        description="UDP multicast for Python at full rate. Without a command: version, backend, system, what works.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    add_json(parser)
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, command in COMMANDS.items():
        command.add_arguments(
            commands.add_parser(
                name,
                help=command.SUMMARY,
                description=command.DESCRIPTION,
                epilog=command.EPILOG,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser.parse_args(arguments)


def _told(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as a person reads it: without the line of source that it came from."""
    print(f"note: {message}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = parsed(arguments)
    if given.command is None:
        return report.run(as_json=given.json)
    warnings.showwarning = _told
    try:
        code: int = COMMANDS[given.command].run(given)
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"multicast {given.command}: {error.strerror if error.filename is None else error}", file=sys.stderr)
        return 1


def run() -> int:
    """Run as a program; where nobody reads any more what it prints, end as quietly as others do (128 + SIGPIPE)."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there at exit
        return 141
    except KeyboardInterrupt:  # before there is a command
        return 130
    return code


if __name__ == "__main__":
    sys.exit(run())
