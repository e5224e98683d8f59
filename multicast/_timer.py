"""A timer that is a descriptor, so that whoever waits for datagrams is woken by it, too (timerfd_create(2)).

Owns the descriptor, and how the system is asked for it where the os module can't (before Python 3.13). Must not call
anybody: it only becomes readable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Timer:
    """Becomes readable every so many seconds, once it is told how many.

    Raises OSError: ENOSYS where neither the os module nor ctypes can ask for one.
    """

    _fd = -1

    def __init__(self) -> None:
        self._fd = _create()

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 once closed."""
        return self._fd

    def every(self, seconds: float) -> None:
        """Become readable in so many seconds, and again each time they have passed; 0: never."""
        _set(self._fd, 0 if seconds == 0 else max(1, round(seconds * 1e9)))

    def clear(self) -> None:
        """Be readable no more until the next time."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Close the descriptor; again, it does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def _create() -> int:
    flags = os.O_NONBLOCK | os.O_CLOEXEC  # timerfd.h defines TFD_NONBLOCK and TFD_CLOEXEC by them
    if hasattr(os, "timerfd_create"):
        fd: int = os.timerfd_create(time.CLOCK_MONOTONIC, flags=flags)
        return fd
    return _checked(_libc().timerfd_create(time.CLOCK_MONOTONIC, flags))


def _set(fd: int, nanoseconds: int) -> None:
    if hasattr(os, "timerfd_settime_ns"):
        os.timerfd_settime_ns(fd, initial=nanoseconds, interval=nanoseconds)
        return
    import ctypes

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    # struct itimerspec: the interval, then the first time. Under this name both glibc and musl take time_t as a long.
    _checked(_libc().timerfd_settime(fd, 0, (ctypes.c_long * 4)(seconds, rest, seconds, rest), None))


def _libc() -> Any:
    try:
        import ctypes
    except ImportError:
        raise OSError(errno.ENOSYS, "timerfd: needs Python 3.13, or ctypes") from None
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    import ctypes

    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"timerfd: {os.strerror(number)}")
    return result
