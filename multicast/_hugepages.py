"""Huge pages: how large they are here, and how much of what was mapped really lies on them.

Owns the questions to /proc and /sys. Must not map anything: `_chunks.pxd` does.
"""

from __future__ import annotations

from . import _errors

_TRANSPARENT = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
_MEMINFO = "/proc/meminfo"
_MAPPINGS = "/proc/self/smaps"
_COUNTED = (b"AnonHugePages:", b"Private_Hugetlb:", b"Shared_Hugetlb:")  # shared: with a forked child, until written to


def page_size(kind: str | None, operation: str) -> int:
    """Return how many bytes a huge page of this kind has; 0 for None."""
    if kind is None:
        return 0
    if kind == "transparent":
        size = _number(_TRANSPARENT, b"", 1)
        file = _TRANSPARENT
    else:
        size = _number(_MEMINFO, b"Hugepagesize:", 1024)
        file = _MEMINFO
    if not size:
        raise _errors.no_huge_pages(operation, kind, file)
    return size


def _number(path: str, name: bytes, unit: int) -> int:
    """Return the number after the name, times the unit; 0 if it isn't there."""
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(name):
                    return int(line.removeprefix(name).split()[0]) * unit
    except (OSError, ValueError, IndexError):
        pass
    return 0


def huge_bytes(mapped: list[tuple[int, int]]) -> int | None:
    """Return how many bytes of these stretches of memory lie on huge pages; None where the system does not tell.

    - mapped: where each begins and ends. A mapping of this process lies wholly in one of them, or in none.
    """
    total = 0
    within = False
    try:
        with open(_MAPPINGS, "rb") as file:
            for line in file if mapped else ():
                head, _, rest = line.partition(b" ")
                if not head.endswith(b":"):
                    begin, end = (int(each, 16) for each in head.split(b"-"))
                    within = any(low <= begin and end <= high for low, high in mapped)
                elif within and head in _COUNTED:
                    total += int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        return None
    return total
