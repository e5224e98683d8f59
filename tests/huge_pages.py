"""Huge pages of the machine: what this process has mapped on them, and some to be reserved for a test.

Owns vm.nr_hugepages while a test needs more of them: it has its old value afterwards. Must not skip but through
`unavailable`, which is never silent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

SIZE = 2 << 20  # of the systems that these tests know the numbers of: x86-64, and aarch64 with pages of 4 KiB
_RESERVED = Path("/proc/sys/vm/nr_hugepages")


class Mapping(NamedTuple):
    """A stretch of this process's memory that is to lie on huge pages: how much is there, and how much on such ones."""

    begin: int
    end: int
    present: int
    huge: int


def mappings() -> set[Mapping]:
    """Those of this process."""
    found = set()
    ends: list[int] = []
    told: dict[str, int] = {}
    for line in Path("/proc/self/smaps").read_text("ascii", "replace").splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            ends = [int(each, 16) for each in name.split("-")]
        elif name != "VmFlags:":
            told[name[:-1]] = int(rest.split()[0]) * 1024 if rest.endswith("kB") else 0
        elif {"hg", "ht"} & set(rest.split()):  # MADV_HUGEPAGE, MAP_HUGETLB
            reserved = told["Private_Hugetlb"] + told["Shared_Hugetlb"]
            found.add(Mapping(*ends, told["Rss"] + reserved, told["AnonHugePages"] + reserved))
    return found


def unavailable(why: object) -> NoReturn:
    """Skip the test for this reason; where CI is set, where a skip goes unseen, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"no huge pages: {why} (a failure, since CI is set)", pytrace=False)
    pytest.skip(f"no huge pages: {why}")


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Let no other run of these tests reserve pages meanwhile."""
    try:
        number = os.open(_RESERVED, os.O_RDONLY)
    except OSError:  # there are none to be reserved
        yield
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def reserved_pages() -> int:
    """How many there are, free or not."""
    return int(_RESERVED.read_text("ascii"))


def _free() -> int:
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("HugePages_Free:"):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def reserved(count: int) -> Iterator[None]:
    """Have so many free pages reserved, and no more than that."""
    with steady():
        free = _free()
        try:
            before = reserved_pages()
            _RESERVED.write_text(str(before - free + count), "ascii")
        except OSError as error:
            unavailable(f"vm.nr_hugepages can't be set: {error}")
        try:
            if _free() != count:
                unavailable(f"{count} were asked for, the kernel reserved {_free()}")
            yield
        finally:
            _RESERVED.write_text(str(before), "ascii")
