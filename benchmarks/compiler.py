"""Compiles the C in this folder and loads it.

Owns that alone. Must not leave a file behind.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent


def loaded(source: str, kind: type[ctypes.CDLL] = ctypes.CDLL) -> ctypes.CDLL:
    """Return the library made of one file; `kind` is ctypes.PyDLL for one that needs the GIL."""
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "library.so"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / source], check=True)
        return kind(str(library))
