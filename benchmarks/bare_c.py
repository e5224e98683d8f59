"""Bare C as a contender: what a program without Python takes for the same queue.

Owns the calls into `bare.c`. Must not measure: the C does, around its own loop.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable

import compiler

from multicast import _arguments

NAME_SIZE = 16  # struct sockaddr_in


@functools.cache
def compiled() -> ctypes.CDLL:
    """Return the library, with the types that its functions have."""
    loaded = compiler.loaded("bare.c")
    loaded.block_new.restype = ctypes.c_void_p
    for function in (loaded.drain_recvmmsg, loaded.drain_trains):
        function.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_int
        function.restype = ctypes.c_longlong
    loaded.drain_recv.restype = ctypes.c_longlong
    return loaded


def recvmmsg(
    queue, batch: int, datagram_size: int = 2048, *, names: bool = False, control: int = 0, trains: bool = False
) -> Callable[[], int]:
    """Return what empties a queue by recvmmsg, with headers and slots as the native backend has them.

    - names: have the source told; control: bytes for control messages; trains: count what UDP_GRO has joined
    """
    library = compiled()
    slot = _arguments.slot_size(_arguments.MAX_DATAGRAM_SIZE if trains else datagram_size)
    block = library.block_new(batch, slot if trains else datagram_size, slot, NAME_SIZE * names, control)
    if not block:
        raise MemoryError
    drain = library.drain_trains if trains else library.drain_recvmmsg
    return functools.partial(_taken, drain, block, queue.socket.fileno(), queue.count)


def recv(queue, datagram_size: int = 2048) -> Callable[[], int]:
    """Return what empties a queue by one recv a datagram."""
    return functools.partial(_taken, compiled().drain_recv, queue.socket.fileno(), queue.count, datagram_size)


def _taken(drain: Callable[..., int], *arguments: object) -> int:
    taken = drain(*arguments)
    if taken == -errno.EAGAIN:
        raise BlockingIOError
    if taken < 0:
        raise OSError(-taken, os.strerror(-taken))
    return taken
