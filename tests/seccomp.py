"""Sandboxes: the kernel refuses a thread chosen system calls (seccomp(2)), one that ends soon or a process's only one.

Owns the filter and its numbers. It ends with the thread; nothing else of the process is touched, and no privilege is
needed. Must not skip but through `unavailable`, which is never silent.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

_CALLS = {
    "x86_64": {
        "mmap": 9,
        "madvise": 28,
        "sendto": 44,
        "recvfrom": 45,
        "sendmsg": 46,
        "recvmsg": 47,
        "socket": 41,
        "bind": 49,
        "socketpair": 53,
        "setsockopt": 54,
        "getsockopt": 55,
        "epoll_ctl": 233,
        "timerfd_create": 283,
        "recvmmsg": 299,
        "sendmmsg": 307,
    },
    "aarch64": {
        "epoll_ctl": 21,
        "timerfd_create": 85,
        "socket": 198,
        "socketpair": 199,
        "bind": 200,
        "sendto": 206,
        "recvfrom": 207,
        "setsockopt": 208,
        "getsockopt": 209,
        "sendmsg": 211,
        "recvmsg": 212,
        "mmap": 222,
        "madvise": 233,
        "recvmmsg": 243,
        "sendmmsg": 269,
    },
}
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of classic BPF
_NUMBER, _ARGUMENTS = 0, 16  # where struct seccomp_data has them; an argument has 8 bytes, the lower half first
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000  # SECCOMP_RET_
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2

Denial = tuple[str, dict[int, int], int]  # a system call, arguments by position that it has to have, the errno


def unavailable(why: object) -> NoReturn:
    """Skip the test for this reason; where CI is set, where a skip goes unseen, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"no seccomp: {why} (a failure, since CI is set)", pytrace=False)
    pytest.skip(f"no seccomp: {why}")


def _program(denials: tuple[Denial, ...], numbers: dict[str, int]) -> bytes:
    code = []
    for call, arguments, number in denials:
        wanted = [(_NUMBER, numbers[call])]
        wanted += [(_ARGUMENTS + 8 * index, value) for index, value in arguments.items()]
        left = 2 * len(wanted)  # instructions of this denial after the one that is written, but for the last
        for offset, value in wanted:
            code.append((_LOAD, 0, 0, offset))
            left -= 2
            code.append((_IF_EQUAL, 0, left + 1, value))
        code.append((_RETURN, 0, 0, _ERRNO | number))
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def enter(*denials: Denial) -> str:
    """Have the calling thread, and what it starts, refused these calls from now on: empty, or why that can't be had."""
    numbers = _CALLS.get(os.uname().machine)
    if numbers is None:
        return f"the numbers of {os.uname().machine}'s system calls are not known here"
    program = _program(denials, numbers)
    libc = ctypes.CDLL(None, use_errno=True)
    memory = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(memory)))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, header, 0, 0):
        return os.strerror(ctypes.get_errno())
    return ""


def denied(function: Callable[[], Any], *denials: Denial) -> Any:
    """Run a function where these calls are refused: return what it returns, or raise what it raises."""
    ended: list[tuple[str, Any, BaseException | None]] = []

    def run() -> None:
        refused = enter(*denials)
        try:
            ended.append((refused, None if refused else function(), None))
        except BaseException as error:
            ended.append(("", None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    ((refused, result, error),) = ended
    if refused:
        unavailable(refused)
    if error is not None:
        raise error
    return result
