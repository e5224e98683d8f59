"""Builds the native backend: the extension's logic alone, all metadata is in pyproject.toml.

MULTICAST_BACKEND decides, with the words that it has at import: `auto` builds the extension where it can (Linux,
CPython) and goes on without it where that fails, `native` makes a failure fatal, `stdlib` builds none.
"""

import ast
import os
import pathlib
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = pathlib.Path(__file__).parent
NOTICE = """
multicast-skt: the native backend could not be built, so this installation receives through the standard library
(correct, and slow). It needs a C compiler and the headers of this Python; on Debian and Ubuntu: gcc and python3-dev.
Then install again with MULTICAST_BACKEND=native, which stops at an error instead of going on without the extension.
"""


class BuildExt(build_ext):
    """Says what a failed build means before setuptools forgives it."""

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception:
            # One that an earlier build left must not stand in for this one.
            for stale in (self.get_ext_fullpath(ext.name), HERE / self.get_ext_filename(ext.name)):
                pathlib.Path(stale).unlink(missing_ok=True)
            if ext.optional:
                print(NOTICE, file=sys.stderr, flush=True)
            raise


def version():
    """The version that multicast/__init__.py states: compiled in, so that a stale extension is recognised."""
    for node in ast.parse((HERE / "multicast" / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__":
            return ast.literal_eval(node.value)
    raise SystemExit("multicast/__init__.py states no __version__")


def extensions():
    choice = os.environ.get("MULTICAST_BACKEND") or "auto"
    if choice not in ("auto", "native", "stdlib"):
        raise SystemExit(f"MULTICAST_BACKEND={choice!r}: use auto, native or stdlib")
    possible = sys.platform == "linux" and sys.implementation.name == "cpython"
    if choice == "native" and not possible:
        raise SystemExit("MULTICAST_BACKEND=native: the native backend is for CPython on Linux")
    if choice == "stdlib" or not possible:
        return []
    # Without Cython setuptools would look for a ready-made _skt.c and, the extension being optional, forgive its
    # absence: a build without the native backend that nobody asked for.
    import Cython  # noqa: F401

    return [
        Extension(
            "multicast._skt",
            ["multicast/_skt.pyx"],
            depends=["multicast/_compat.h", *sorted(map(str, pathlib.Path("multicast").glob("*.px[di]")))],
            define_macros=[("MULTICAST_VERSION", f'"{version()}"')],
            optional=choice != "native",
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
