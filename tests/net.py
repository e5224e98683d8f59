"""What several test files need to run the package in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

# What a script begins with that has to be an ordinary user's: no CAP_NET_ADMIN, whoever runs the tests.
ORDINARY = """
import os
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


def python_environment(package: ModuleType, backend: str | None = None, *, tests: bool = False) -> dict[str, str]:
    """The environment in which a fresh interpreter imports the very package under test, with its backend.

    tests: and what the tests have beside it
    """
    path = [pathlib.Path(package.__file__).parent.parent] + [pathlib.Path(__file__).parent] * tests
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONSAFEPATH": "1",
        "MULTICAST_BACKEND": package.BACKEND if backend is None else backend,
    }


def told(package: ModuleType, code: str, *arguments: object, inside=None) -> object:
    """Run code in a fresh interpreter that has the package under test; return what it printed, which is JSON.

    - inside: a host of rig.py to run it in, as its root
    """
    command = [sys.executable, "-P", "-W", "error", "-c", code, *map(str, arguments)]
    if inside is not None:
        command = inside.inside(*command)
    done = subprocess.run(command, env=python_environment(package), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tool(name: str, package: str) -> str:
    """Where a program of the system is; a skip that says so, or with CI set, where a skip goes unseen, a failure."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed (apt-get install {package})"
        if os.environ.get("CI"):
            pytest.fail(f"{missing} (a failure, since CI is set)", pytrace=False)
        pytest.skip(missing)
    return found


@contextlib.contextmanager
def repeating(call: Callable[[], object], pause: float = 0.001) -> Iterator[None]:
    """Have a thread call something again and again until the end of the block.

    - pause: seconds between two calls
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(pause):
            call()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def open_descriptors() -> dict[str, str]:
    """What this process has open, by number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of this very listing
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found
