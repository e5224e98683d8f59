"""The compiled programs of the live scenarios: the sender, bare C's receivers and Go's.

Owns how they are built, into a folder that goes with them. What can't be had here says why; without a C compiler there
is no sender, and so nothing.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

HERE = pathlib.Path(__file__).parent
DISTRIBUTION = "/usr/share/gocode"  # where Debian and its kin install Go's libraries


class NotBuilt(Exception):
    """A program that can't be had here; says why."""


class Programs:
    """Paths of the programs, in a folder that they are built into: Go's only when it is asked for."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._why_no_go = ""
        self.feed = _compiled(HERE / "receivers" / "feed.c", folder)
        self.receive = _compiled(HERE / "receivers" / "receive.c", folder)

    def go(self) -> pathlib.Path:
        """Return Go's receiver; raises NotBuilt, again if it did before."""
        program = self._folder / "go-receive"
        if not program.exists():
            try:
                if self._why_no_go:
                    raise NotBuilt(self._why_no_go)
                _go_build(HERE / "go" / "receive.go", program)
            except NotBuilt as reason:
                self._why_no_go = str(reason)
                raise
        return program


@contextlib.contextmanager
def built() -> Iterator[Programs]:
    """Build them all; they are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="multicast-bench-") as folder:
        yield Programs(pathlib.Path(folder))


def _compiled(source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    program = folder / source.stem
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, source], check=True)
    return program


def _go_build(source: pathlib.Path, program: pathlib.Path) -> None:
    """Build by GOPATH, from what is installed: nothing is fetched."""
    go = shutil.which("go")
    if go is None:
        raise NotBuilt("no Go toolchain")
    own = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=True).stdout.strip()
    environment = os.environ | {
        "GOPATH": os.pathsep.join(filter(None, (own, DISTRIBUTION))),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
    }
    command = [go, "build", "-o", program, source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotBuilt(f"go build: {done.stderr.strip().splitlines()[0]}")
