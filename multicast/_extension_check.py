"""The compiled extension that was found, or was not: whether it is whole, and this package's, and why there is none.

Owns what a backend has to have. Must not import one, nor choose: the door does.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES

from . import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# What a backend has to have. One that lacks a name fails here, when it is imported, and not in somebody's loop.
BACKEND_NAMES = (
    "VERSION",
    "Batch",
    "Poller",
    "Receiver",
    "Sender",
    "batch_refusals",
    "block_source",
    "bound_address",
    "follow_interface",
    "get_source_filter",
    "join_group",
    "leave_group",
    "limit_to_joined",
    "set_multicast_interface",
    "set_multicast_loopback",
    "set_multicast_ttl",
    "set_receive_buffer",
    "set_source_filter",
    "unblock_source",
)


def refuse_cut() -> None:
    """Refuse an extension that lacks its end: the system's loader maps what its head promises, and dies of that."""
    for suffix in EXTENSION_SUFFIXES:
        place = os.path.join(os.path.dirname(__file__), f"_skt{suffix}")
        try:
            with open(place, "rb", buffering=0) as file:
                head, there = file.read(4096), os.fstat(file.fileno()).st_size
        except OSError:
            continue  # there is none, or the import says what is wrong with it
        promised = _promised(head)
        if promised > there:
            raise ImportError(
                f"the extension {place} is cut short: {there} bytes of {promised}. Install the package again "
                "(pip install --force-reinstall multicast-skt), or set MULTICAST_BACKEND=stdlib to do without it",
                name="multicast._skt",
                path=place,
            )
        return  # the one that the import takes


def _promised(head: bytes) -> int:
    """How long a shared object is by what its head says (elf(5)): the end of its segments and its sections' table."""
    if head[:5] != b"\x7fELF\x02":
        return 0  # of 32 bits, or none: the loader refuses it

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], "big" if head[5] == 2 else "little")

    sections = number(40, 8) + number(58, 2) * number(60, 2)  # e_shoff, e_shentsize, e_shnum
    first, each, count = number(32, 8), number(54, 2), number(56, 2)  # e_phoff, e_phentsize, e_phnum
    segments = range(first, min(first + each * count, len(head)), each or 1)
    return max(sections, *(number(at + 8, 8) + number(at + 32, 8) for at in segments), 0)  # p_offset, p_filesz


def refuse_another(backend: ModuleType) -> None:
    """Refuse an extension that is not this package's: left behind by another version, or found in another place."""
    missing = [name for name in BACKEND_NAMES if not hasattr(backend, name)]
    version, place, own = getattr(backend, "VERSION", None), backend.__file__ or "", os.path.dirname(__file__)
    if missing:
        wrong = f"is stale: it lacks {', '.join(missing)}"
    elif version != __version__:
        wrong = f"is stale: it is of version {version}, the package of {__version__}"
    elif os.path.dirname(place) != own:
        wrong = f"belongs to another installation than {own}"
    else:
        return
    raise ImportError(
        f"the extension {place} {wrong}. Build it again (pip install multicast-skt), "
        "or set MULTICAST_BACKEND=stdlib to do without it",
        name=backend.__name__,
        path=place,
    )


def why_missing() -> str:
    """Return why there is no extension to import, for whoever asks which backend is in force."""
    if sys.platform != "linux":
        return f"the native backend is for Linux, this is {sys.platform}"
    here = os.path.dirname(__file__)
    others = sorted(name for name in os.listdir(here) if name.startswith("_skt.") and name.endswith(".so"))
    wanted = f"{sys.implementation.cache_tag} on {os.uname().machine}"
    there = f"only {', '.join(others)} is there" if others else "it was not built when the package was installed"
    return f"no extension multicast._skt for {wanted}: {there}"
