"""The tests that each wheel has to pass where it is installed: `python tests/installed.py`, in a copy of the tests.

Owns which they are: those of what a build can get wrong, as far as they need only Python, a loopback interface and the
extra `wheel-test`. Each backend is tested in a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EVERYWHERE = "any_system contract feed feeds free_threading pacing sequence"
# Most tests look at what Linux does, or were never tried elsewhere.
LINUX = """
arguments arguments_methods arguments_undone arguments_values async backend batches closing columns
columns_hosts command error_queue filter first_touch import_quiet interfaces isolation membership
memory options other_package own_memory poller poller_arguments poller_closing process segmentation sending
shared_blocks signals spin tracking trains tuning waiting
"""
# Tests that pass, by backend: fewer would be a skip that nobody sees.
FEWEST = 1000 if sys.platform == "linux" else 40


def passed(backend: str, arguments: list[str]) -> int | None:
    """How many tests pass on a backend; None where one fails, or where there are too few."""
    names = EVERYWHERE.split() + (LINUX.split() if sys.platform == "linux" else [])
    files = [str(HERE / f"test_{name}.py") for name in names]
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not alone",
        *files,
        *arguments,
    ]
    environment = os.environ | {"MULTICAST_BACKEND": backend, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    count = re.search(r"(\d+) passed", done.stdout.rstrip().rpartition("\n")[2])
    found = int(count[1]) if count else 0
    if done.returncode or found < FEWEST:
        print(f"installed: {backend}: failed, exit status {done.returncode}, {found} passed")
        return None
    print(f"installed: {backend}: {found} passed", flush=True)
    return found


def main(arguments: list[str]) -> int:
    """Test each backend that there is on this system; 1 where one fails. Arguments are pytest's."""
    backends = ["native", "stdlib"] if sys.platform == "linux" else ["stdlib"]
    counts = [passed(backend, arguments) for backend in backends]  # all of them, also when the first one fails
    return int(None in counts)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
