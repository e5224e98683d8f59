"""Settings of the kernel that are numbers (sysctl(8)), as this process may read them."""

from __future__ import annotations

_PATH = str.maketrans("./", "/.")  # what sysctl(8) makes of the one in a name, and of the other


def value(name: str) -> int | None:
    """Return the number that a setting such as net.core.rmem_max is at; None where it can't be read.

    As sysctl(8) takes it, a name that has a dot in it is written with a slash: net.ipv4.conf.eth0/100.rp_filter.
    """
    try:
        with open("/proc/sys/" + name.translate(_PATH), encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
