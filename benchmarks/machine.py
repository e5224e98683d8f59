"""What the figures were taken on.

Owns that; `pinned` is here, too, for those who measure. Must not fail where something can't be found out: it is left
out then.
"""

from __future__ import annotations

import os
import pathlib
import platform
import sys

import multicast
from multicast.bench import pinned

__all__ = ["describe", "pinned", "text"]

CPU = pathlib.Path("/sys/devices/system/cpu")


def describe() -> dict[str, object]:
    """Return what a reader has to know of machine, system and package to compare figures."""
    facts = {
        "cpu": _cpu_model() or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "virtual": "hypervisor" in (_first("flags") or "") or None,
        "governor": _read(CPU / "cpu0/cpufreq/scaling_governor"),
        "mitigations": _mitigations(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "package": multicast.__version__,
        "backend": multicast.BACKEND,
        "why": multicast.BACKEND_REASON,
    }
    return {name: fact for name, fact in facts.items() if fact not in (None, "", {})}


def text(facts: dict[str, object]) -> str:
    """Return that as text, a line for each fact."""
    flat = {
        name: "; ".join(f"{key}: {value}" for key, value in fact.items()) if isinstance(fact, dict) else fact
        for name, fact in facts.items()
    }
    return "\n".join(f"{name:12} {fact}" for name, fact in flat.items())


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return None


def _first(key: str) -> str | None:
    """Return the first value of a key in /proc/cpuinfo."""
    for line in (_read(pathlib.Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _cpu_model() -> str | None:
    return _first("model name")


def _mitigations() -> dict[str, str]:
    """Return the processor's faults that the kernel works around: each costs system calls something."""
    folder = CPU / "vulnerabilities"
    if not folder.is_dir():
        return {}
    found = {each.name: _read(each) or "" for each in sorted(folder.iterdir())}
    return {name: how for name, how in found.items() if how and how != "Not affected"}
