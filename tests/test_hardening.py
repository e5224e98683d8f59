"""release/hardening.py finds each fault that a shared object can have: built with it, by the compiler of this host."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import subprocess
import sys

import pytest
from elftools.elf.elffile import ELFFile

if sys.platform != "linux":
    pytest.skip("shared objects of Linux", allow_module_level=True)

hardening = pytest.importorskip("hardening")  # of release/, which is not where only the tests were copied to

# Calls memcpy for a length that the compiler can't know into a buffer that it does: what each protection is for.
SOURCE = """
#include <string.h>
__attribute__((visibility("default"))) int begin(const char *text, unsigned long length) {
    char buffer[64];
    memcpy(buffer, text, length);
    return buffer[length / 2];
}
int inner(void) { return 1; }
"""
COMPILE = [
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
]
LINK = ["-shared", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]


@dataclasses.dataclass
class Fault:
    """How it is reported, and how it comes about: options in place of others."""

    reported: str
    instead: dict[str, list[str]]


FAULTS = {
    "lazily bound": Fault("no BIND_NOW", {"-Wl,-z,now": ["-Wl,-z,lazy"]}),
    "no read-only relocations": Fault("no RELRO", {"-Wl,-z,relro": ["-Wl,-z,norelro"]}),
    "executable stack": Fault("an executable stack", {"-Wl,-z,noexecstack": ["-Wl,-z,execstack"]}),
    "RUNPATH": Fault("RUNPATH /opt/somewhere", {"-shared": ["-shared", "-Wl,-rpath,/opt/somewhere"]}),
    "RPATH": Fault(
        "RPATH /opt/somewhere", {"-shared": ["-shared", "-Wl,-rpath,/opt/somewhere", "-Wl,--disable-new-dtags"]}
    ),
    "more exported": Fault("exports begin, inner in place of begin", {"-fvisibility=hidden": []}),
    "less exported": Fault(
        "exports nothing in place of begin", {"-shared": ["-shared", "-Wl,--version-script=/dev/stdin"]}
    ),
    "no stack protector": Fault("no stack protector", {"-fstack-protector-strong": ["-fno-stack-protector"]}),
    "not fortified": Fault("not fortified", {"-D_FORTIFY_SOURCE=2": []}),
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the source with some options replaced: the shared object's bytes."""
    folder = tmp_path_factory.mktemp("hardening")
    source, built = folder / "source.c", folder / "built.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))

    def build(fault: Fault | None = None, more: str = "") -> bytes:
        source.write_text(SOURCE + more, "utf-8")
        instead = fault.instead if fault else {}
        options = [word for option in COMPILE + LINK for word in instead.get(option, [option])]
        hiding = "{ local: *; };"  # for the linker that reads it from stdin, where it is asked to
        subprocess.run([*compiler, *options, source, "-o", built], check=True, input=hiding, text=True)
        return built.read_bytes()

    return build


def test_an_object_with_everything_has_no_fault(build):
    assert hardening.faults(build(), {"begin"}, fortified=True) == []
    assert hardening.exports(build()) == {"begin"}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_no_other(build, name):
    fault = FAULTS[name]
    found = hardening.faults(build(fault), {"begin"}, fortified=True)
    assert len(found) == 1, found
    assert found[0].startswith(fault.reported)


def test_code_that_is_changed_when_it_is_loaded_is_found(build):
    """Planted in the object: no compiler of today makes one that anything still loads."""
    whole = build()
    at = ELFFile(io.BytesIO(whole)).get_section_by_name(".dynamic")["sh_offset"]
    assert whole[at : at + 8] == (1).to_bytes(8, sys.byteorder)  # DT_NEEDED, the first entry
    planted = whole[:at] + (22).to_bytes(8, sys.byteorder) + whole[at + 8 :]  # DT_TEXTREL
    assert hardening.faults(planted, {"begin"}, fortified=True) == ["TEXTREL: its code is changed when it is loaded"]


def test_memory_that_is_writable_and_executable_is_found(build):
    """Planted in the object, as the one above: in the flags of the segment that has the code."""
    whole = build()
    segments = enumerate(ELFFile(io.BytesIO(whole)).iter_segments())
    code = next(n for n, each in segments if each["p_type"] == "PT_LOAD" and each["p_flags"] == 5)  # PF_R, PF_X
    at = int.from_bytes(whole[32:40], sys.byteorder) + code * 56 + 4  # e_phoff, Elf64_Phdr, p_flags
    planted = whole[:at] + (7).to_bytes(4, sys.byteorder) + whole[at + 4 :]
    assert hardening.faults(planted, {"begin"}, fortified=True) == ["memory that is writable and executable"]


def test_what_musl_puts_into_each_object_is_not_held_against_it(build):
    alone = Fault("", {"-shared": ["-shared", "-nostartfiles"]})  # glibc has these two as well, not exported
    built = build(alone, '__attribute__((visibility("default"))) void _init(void) {}')
    assert hardening.exports(built) == {"begin", "_init"}
    assert hardening.faults(built, {"begin"}, fortified=True) == []


def test_where_the_c_library_has_no_checked_functions_none_is_asked_for(build):
    assert hardening.faults(build(FAULTS["not fortified"]), {"begin"}, fortified=False) == []
