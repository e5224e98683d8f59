"""What a release consists of: python3 release/expected.py --tag v1.2.3 FOLDER ends with 1 if the folder has another.

Owns the list of the wheels, for [tool.cibuildwheel] and the workflows too (tests/test_workflows.py compares them). Must
run on a machine that has nothing but Python: it stands between what was built and what is published.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import pathlib
import re
import sys
from collections import Counter

INIT = pathlib.Path(__file__).resolve().parent.parent / "multicast" / "__init__.py"
NAME = "multicast_skt"

PYTHONS = ("cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t")
LINUX = ("manylinux_x86_64", "manylinux_aarch64", "musllinux_x86_64", "musllinux_aarch64")
MACOS = ("macosx_x86_64", "macosx_arm64")
WINDOWS = ("win_amd64", "win_arm64")
# One wheel for each of LINUX, built by the first of these and tested with all.
STABLE_ABI = ("cp312", "cp313", "cp314", "cp315")
# The newest libc that a wheel may ask for, that of the image that builds it. auditwheel may find that older ones do.
NEWEST = {"manylinux": (2, 28), "musllinux": (1, 2)}


def expected(version: str) -> set[str]:
    """Return what a release has, as `described` puts it."""
    extensions = [f"{python.rstrip('t')}-{python}" for python in PYTHONS] + [f"{STABLE_ABI[0]}-abi3"]
    wheels = [*itertools.product(extensions, LINUX), *itertools.product(["py3-none"], MACOS + WINDOWS)]
    return {f"{NAME}-{version}.tar.gz"} | {f"{NAME}-{version}-{tag}-{platform}.whl" for tag, platform in wheels}


def described(name: str) -> str:
    """Return a file's name, that of a wheel without the versions that its platforms' tags carry.

    ValueError if they ask for a libc that is too new, or aren't of one platform.
    """
    if not name.endswith(".whl"):
        return name
    rest, _, tags = name.removesuffix(".whl").rpartition("-")
    platforms = set()
    for tag in tags.split("."):
        found = re.fullmatch(r"(manylinux|musllinux|macosx)_(\d+)_(\d+)_(\w+)", tag)
        if found is None:  # win_amd64; and manylinux2014_x86_64, the old name of one that stands beside it
            platforms.add(re.sub(r"^manylinux\d+_", "manylinux_", tag))
            continue
        system, major, minor, machine = found.groups()
        if system in NEWEST and (int(major), int(minor)) > NEWEST[system]:
            raise ValueError(f"{name}: {tag}, and the newest is to be {NEWEST[system]}")
        platforms.add(f"{system}_{machine}")
    if len(platforms) > 1:
        raise ValueError(f"{name}: for {' and '.join(sorted(platforms))}")
    return f"{rest}-{platforms.pop()}.whl"


def differences(names: list[str], version: str) -> list[str]:
    """Return what is wrong with these files as a release, in words; nothing if it is as expected."""
    wrong, found = [], Counter()
    for name in sorted(names):
        try:
            found[described(name)] += 1
        except ValueError as error:
            wrong.append(str(error))
    wanted = expected(version)
    wrong += [f"missing: {name}" for name in sorted(wanted - found.keys())]
    wrong += [f"unexpected: {name}" for name in sorted(found.keys() - wanted)]
    wrong += [f"{count} of one kind: {name}" for name, count in sorted(found.items()) if count > 1]
    return wrong


def package_version() -> str:
    """Return the version that multicast/__init__.py states, without an import of the package."""
    for node in ast.parse(INIT.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__":
            return ast.literal_eval(node.value)
    raise SystemExit(f"{INIT} states no __version__")


def main() -> int:
    """Compare what was built with what is expected: the exit code."""
    parser = argparse.ArgumentParser(description="Compares what was built with what a release consists of.")
    parser.add_argument("--tag", help="what the commit is tagged with: has to be the package's version, with a v")
    parser.add_argument("folder", type=pathlib.Path)
    given = parser.parse_args()
    version = package_version()
    wrong = differences([each.name for each in given.folder.iterdir()], version)
    if given.tag is not None and given.tag != f"v{version}":
        wrong.append(f"the tag is {given.tag}, and the version {version}")
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(expected(version))} files, as expected of {version}")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
