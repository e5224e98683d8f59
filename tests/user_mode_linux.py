"""A machine of its own: Linux as a process (User Mode Linux), for settings that all of a kernel shares.

Owns how it is booted, and that it is gone afterwards. What a network namespace has of its own belongs into one: see
rig.py. This machine's own kernel is not touched.
"""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from net import tool

DEADLINE = 120  # seconds: it takes some four
_BEGIN, _END = "-- the machine's own words --", "-- status"


def run(folder: Path, commands: str, environment: Mapping[str, str]) -> list[str]:
    """Boot, run the commands of a shell as root, and return the lines that they printed.

    - folder: what is made for it is put here
    - environment: of the commands; of this process's they have PATH alone. Files are those of this machine, for reading
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("User Mode Linux is for Linux on x86-64")
    linux = tool("linux.uml", "user-mode-linux")
    init = folder / "init"
    known = ((name, value) for name, value in environment.items() if os.environ.get(name) != value or name == "PATH")
    exported = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in known)
    init.write_text(
        "#!/bin/sh\n"
        f"{exported}exec 2>&1\n"
        "mount -t proc proc /proc && mount -t sysfs sys /sys && ip link set lo up\n"
        f"echo {shlex.quote(_BEGIN)}\n(\n{commands}\n)\necho '{_END}' $?\n"
        "echo o > /proc/sysrq-trigger\nsleep 60\n"
    )
    init.chmod(0o755)
    hardware = ["mem=192M", "con=null", "con0=fd:0,fd:1", "quiet", f"uml_dir={folder}/"]
    command = [linux, *hardware, "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(folder)},  # where its memory is, a file: /dev/shm may be small, or noexec
        start_new_session=True,
    ) as booted:
        try:
            printed, _ = booted.communicate(timeout=DEADLINE)
        except BaseException:
            os.killpg(booted.pid, signal.SIGKILL)  # it is several processes
            raise
    lines = printed.decode("utf-8", "replace").replace("\r", "").splitlines()
    if _BEGIN not in lines:  # where ptrace(2) is forbidden, as a container's sandbox may
        pytest.skip(f"User Mode Linux does not boot here: {' / '.join(lines[-3:])}")
    said = lines[lines.index(_BEGIN) + 1 :]
    (last,) = (at for at, line in enumerate(said) if line.startswith(_END))
    assert said[last] == f"{_END} 0", "\n".join(said)
    return said[:last]
