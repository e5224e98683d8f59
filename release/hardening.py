"""How a shared object is hardened, read from the object itself.

Owns what is asked of the extension that wheels carry. Must not trust how it was built: no flag is looked at, only what
came of it.
"""

from __future__ import annotations

import io
import re
from typing import Any

from elftools.elf.elffile import ELFFile

STARTUP = {"_init", "_fini"}  # musl's own, in whatever is linked with it
EXECUTABLE, WRITABLE = 1, 2  # PF_X and PF_W, elf(5)
BIND_NOW, NOW = 8, 1  # DF_BIND_NOW of DT_FLAGS, DF_1_NOW of DT_FLAGS_1
# The C library's functions that have a twin which is told how long the destination is: what the extension calls of
# them. A musl has none of the twins.
FORTIFIED = re.compile(r"__\w+_chk$")


def faults(shared_object: bytes, exported: set[str], *, fortified: bool) -> list[str]:
    """What is wrong with a shared object; nothing, where the list is empty.

    - exported: the names that it may offer to others, all of which it has to
    - fortified: its C library has checked versions of memcpy and its like
    """
    elf = ELFFile(io.BytesIO(shared_object))
    found = _segments(elf)
    tags = _dynamic(elf)
    if not (tags.get("DT_FLAGS", 0) & BIND_NOW or tags.get("DT_FLAGS_1", 0) & NOW or "DT_BIND_NOW" in tags):
        found.append("no BIND_NOW: addresses of functions stay writable while it runs")
    found += [
        f"{tag[3:]} {tags[tag]}: it looks for libraries there" for tag in ("DT_RPATH", "DT_RUNPATH") if tag in tags
    ]
    if "DT_TEXTREL" in tags:
        found.append("TEXTREL: its code is changed when it is loaded")
    here, needed = _symbols(elf)
    here -= STARTUP
    if here != exported:
        found.append(f"exports {', '.join(sorted(here)) or 'nothing'} in place of {', '.join(sorted(exported))}")
    if "__stack_chk_fail" not in needed:
        found.append("no stack protector")
    if fortified and not any(FORTIFIED.match(name) for name in needed - {"__stack_chk_fail"}):
        found.append("not fortified")
    return found


def _segments(elf: ELFFile) -> list[str]:
    found = []
    kinds = {segment["p_type"]: segment for segment in elf.iter_segments()}
    if "PT_GNU_RELRO" not in kinds:
        found.append("no RELRO: what only the loader writes stays writable")
    if "PT_GNU_STACK" not in kinds or kinds["PT_GNU_STACK"]["p_flags"] & EXECUTABLE:
        found.append("an executable stack")
    both = EXECUTABLE | WRITABLE
    if any(segment["p_flags"] & both == both for segment in elf.iter_segments("PT_LOAD")):
        found.append("memory that is writable and executable")
    return found


def _dynamic(elf: ELFFile) -> dict[str, Any]:
    """The entries of the dynamic section, by tag: text where an entry is of text, else a number."""
    section = elf.get_section_by_name(".dynamic")
    return {
        tag.entry.d_tag: getattr(tag, tag.entry.d_tag[3:].lower(), tag.entry.d_val)
        for tag in (section.iter_tags() if section else ())
    }


def exports(shared_object: bytes) -> set[str]:
    """The names that a shared object offers to others."""
    return _symbols(ELFFile(io.BytesIO(shared_object)))[0]


def _symbols(elf: ELFFile) -> tuple[set[str], set[str]]:
    """The names that a shared object offers to others, and those that it needs of others."""
    here, needed = set(), set()
    for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
        if symbol["st_shndx"] == "SHN_UNDEF":
            needed.add(symbol.name)
        elif symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK"):
            here.add(symbol.name)
    return here, needed
