"""Builds walker.pyx, which drives what reads control messages, and runs it in a process of its own.

Owns how it is compiled: with this Python's Cython and its compiler, into a folder that is not the source's. Must not
import the package: what is compiled comes from its .pxd files.

    python walking.py build FOLDER [MACRO ...]            CFLAGS and LDFLAGS are the compiler's, as they are everywhere
    python walking.py run EXTENSION SEED CASES FIRST AT    AT: a file, where the number of the case under way is kept
"""

from __future__ import annotations

import importlib.util
import json
import mmap
import os
import pathlib
import shlex
import subprocess
import sys
import sysconfig
import time
from types import ModuleType

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
PLANTS = ("WALKER_READS_ON", "WALKER_LIES")  # faults that walker.pyx has ready, each to be 0 or 1


def build(folder: pathlib.Path, *macros: str) -> pathlib.Path:
    """Compile the walker with these macros defined: the extension."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "walker.c"
    extension = folder / f"walker{sysconfig.get_config_var('EXT_SUFFIX')}"
    # A sanitizer that this process runs with is not the compiler's business.
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")}
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    if not source.exists():
        cython = [sys.executable, "-m", "cython", "-I", ROOT, HERE / "walker.pyx", "-o", source]
        subprocess.run(cython, check=True, env=environment)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    compiler += shlex.split(os.environ.get("CFLAGS", "-O1"))
    compiler += [f"-D{name}={int(name in macros)}" for name in PLANTS]
    compiler += [f"-D{name}" for name in macros if name not in PLANTS]
    compiler += ["-fPIC", "-shared", f"-I{sysconfig.get_path('include')}", f"-I{ROOT / 'multicast'}", f"-I{HERE}"]
    command = [*compiler, source, "-o", extension, *shlex.split(os.environ.get("LDFLAGS", ""))]
    subprocess.run(command, check=True, env=environment)
    return extension


def load(extension: pathlib.Path) -> ModuleType:
    """Import the walker from where it was built."""
    found = importlib.util.spec_from_file_location("walker", extension)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def run(extension: pathlib.Path, seed: int, cases: int, first: int, at: pathlib.Path) -> dict[str, object]:
    """Run the cases: how often each outcome was seen, and how long it took."""
    with at.open("r+b") as file, mmap.mmap(file.fileno(), 8) as place:
        begin = time.monotonic()
        seen = load(extension).fuzz(seed, cases, first, place)
        return {"seconds": round(time.monotonic() - begin, 1), "seen": seen}


def main(words: list[str]) -> None:
    """Do what the command line says."""
    if words[0] == "build":
        print(build(pathlib.Path(words[1]), *words[2:]))
    else:
        seed, cases, first = map(int, words[2:5])
        print(json.dumps(run(pathlib.Path(words[1]), seed, cases, first, pathlib.Path(words[5]))))


if __name__ == "__main__":
    main(sys.argv[1:])
