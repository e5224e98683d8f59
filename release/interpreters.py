"""The Pythons of this machine, and environments of theirs with nothing in them.

Owns how they are found. Must not install into one that is found, only into environments made here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

OLDEST = (3, 11)
AT_MOST = 10_000  # characters of what a failed command said, the last ones
PROBE = """
import json, os, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": sys.version_info[:3],
    "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "headers": os.path.exists(sysconfig.get_path("include") + "/Python.h"),
}))
"""


@dataclasses.dataclass(frozen=True, order=True)
class Interpreter:
    """A CPython that extensions can be built for."""

    version: tuple[int, int, int]
    threaded: bool  # built without the GIL
    executable: Path

    @property
    def tag(self) -> str:
        """As in the name of a wheel: cp311, cp314t."""
        return f"cp{self.version[0]}{self.version[1]}{'t' * self.threaded}"

    def __str__(self) -> str:
        return f"CPython {'.'.join(map(str, self.version))}{'t' * self.threaded}"


def candidates() -> Iterator[Path]:
    """Where a Python may be: the one that runs this, those on PATH, those that pyenv has."""
    yield Path(sys._base_executable)  # type: ignore[attr-defined]  # of the environment, what it was made from
    for folder in map(Path, os.get_exec_path()):
        if folder.is_dir():
            yield from sorted(each for each in folder.iterdir() if re.fullmatch(r"python3\.\d+t?", each.name))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob("versions/*/bin/python3"))


def probed(executable: Path) -> Interpreter | None:
    """What a Python is; None where it is none that the package could be built for."""
    command = [str(executable), "-I", "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):  # a shim that leads nowhere
        return None
    version = tuple(found["version"])
    if found["implementation"] != "cpython" or not found["headers"] or version[:2] < OLDEST:
        return None
    return Interpreter(version, found["threaded"], executable)


def installed(given: Iterable[Path] = ()) -> list[Interpreter]:
    """One CPython of each version, oldest first; of several with one version, the newest.

    - given: look at these alone
    """
    places = list(given) or list({each.resolve(): each for each in candidates()}.values())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = sorted(each for each in pool.map(probed, places) if each is not None)
    return sorted({each.tag: each for each in found}.values())


class Environment:
    """A virtual environment with nothing in it, not even pip: ours installs into it."""

    def __init__(self, interpreter: Interpreter, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([interpreter.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.folder = folder
        self.python = folder / "bin" / "python"

    def pip(self, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
        """Run our pip for it. Options are those of `run`."""
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python, *arguments]
        return run(*command, **options)

    def run(self, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
        """Run its Python, with nothing of who runs this in the environment that could lead it elsewhere."""
        return run(self.python, *arguments, **options)


class Failed(Exception):
    """What was asked for is not so; the text says what, and what the command said that found it."""


def run(*command: object, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """Run a command; raise Failed, with the end of what it said, where that fails.

    - environment: variables beside those of this process, without its PYTHON* and MULTICAST_*
    - inside: the command that runs it
    """
    words = [str(word) for word in (*options.pop("inside", ()), *command)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MULTICAST_"))}
    environment = kept | options.pop("environment", {})
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, **options)
    if check and done.returncode:
        said = "".join(f"\n{text[-AT_MOST:].strip()}" for text in (done.stdout, done.stderr) if text)
        raise Failed(f"{' '.join(words)}: exit status {done.returncode}{said}")
    return done
