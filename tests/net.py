"""What several test files need to run the package in processes of their own."""

import contextlib
import os
import pathlib
from types import ModuleType


def python_environment(package: ModuleType, backend: str | None = None) -> dict[str, str]:
    """The environment in which a fresh interpreter imports the very package under test, with its backend."""
    return os.environ | {
        "PYTHONPATH": str(pathlib.Path(package.__file__).parent.parent),
        "PYTHONSAFEPATH": "1",
        "MULTICAST_BACKEND": package.BACKEND if backend is None else backend,
    }


def open_descriptors() -> dict[str, str]:
    """What this process has open, by number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of this very listing
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found
