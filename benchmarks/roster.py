"""Who takes part in the live scenarios, and as what: every contender by name, and which ones are told the same.

Owns the list. Must not run anything.
"""

from __future__ import annotations

from live import Contender


def _python(name: str, word: str, program: str = "native", **options: object) -> Contender:
    return Contender(name, program, word, **options)


C_RECV = Contender("C recv", "c", "recv", ends="shutdown")
C_RECVMMSG = Contender("C recvmmsg", "c", "recvmmsg", ends="shutdown")
C_TOLD = Contender("C recvmmsg, all told", "c", "recvmmsg", told=True, ends="shutdown")
GO = Contender("Go ReadBatch", "go", "")  # x/net makes each datagram's source, asked or not

RECV_INTO = _python("socket.recv_into", "recv_into", ends="shutdown")
RECVFROM_INTO = _python("socket.recvfrom_into", "recvfrom_into", ends="shutdown")
RECVMSG_INTO = _python("socket.recvmsg_into, all told", "recvmsg_into", told=True, ends="shutdown")
ASYNCIO = _python("asyncio's protocol", "asyncio")
UVLOOP = _python("uvloop's protocol", "uvloop")
EXPERT = _python("multicast_expert", "multicast_expert", ends="shutdown")
EXPERT_ASYNC = _python("multicast_expert, asyncio", "multicast_expert-async")
SPEAD2 = _python("spead2, a heap of each", "spead2")

TWIN = _python("stdlib backend", "batches", "stdlib")
TWIN_TOLD = _python("stdlib backend, all columns", "batches-all", "stdlib", told=True)
NATIVE = _python("native", "batches")
NATIVE_VIEWS = _python("native, each view", "views")
NATIVE_SPIN = _python("native, spin", "batches-spin")
NATIVE_GRO = _python("native, GRO", "batches-gro", gro=True)
NATIVE_SOURCE = _python("native, source", "batches-source")
NATIVE_TOLD = _python("native, all columns", "batches-all", told=True)
NATIVE_ASYNCIO = _python("native, asyncio", "batches-asyncio")
NATIVE_UVLOOP = _python("native, uvloop", "batches-uvloop")
NATIVE_ASYNCIO_CALLBACK = _python("native, asyncio callback", "callback-asyncio")
NATIVE_UVLOOP_CALLBACK = _python("native, uvloop callback", "callback-uvloop")
NATIVE_ASYNCIO_VIEWS = _python("native, asyncio, each view", "views-asyncio")
NATIVE_UVLOOP_VIEWS = _python("native, uvloop, each view", "views-uvloop")

# Those of a line have the same told of each datagram by the kernel: nothing; where it came from; all there is.
TOLD_NOTHING = (C_RECV, C_RECVMMSG, RECV_INTO, SPEAD2, TWIN, NATIVE, NATIVE_VIEWS, NATIVE_SPIN, NATIVE_GRO)
TOLD_SOURCE = (
    *(GO, RECVFROM_INTO, EXPERT, EXPERT_ASYNC, ASYNCIO, UVLOOP),
    *(NATIVE_SOURCE, NATIVE_ASYNCIO, NATIVE_UVLOOP),
)
TOLD_ALL = (C_TOLD, RECVMSG_INTO, TWIN_TOLD, NATIVE_TOLD)
ALL = TOLD_NOTHING + TOLD_SOURCE + TOLD_ALL
