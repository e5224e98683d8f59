"""Settings of the kernel that are numbers (sysctl(8)), as this process may read them."""

from __future__ import annotations


def value(name: str) -> int | None:
    """Return the number that a setting such as net.core.rmem_max is at; None where it can't be read."""
    try:
        with open("/proc/sys/" + name.replace(".", "/"), encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
