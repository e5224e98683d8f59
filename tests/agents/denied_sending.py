"""Sends trains where a seccomp filter answers one system call with an errno, and prints the lengths as they came."""

import ctypes
import errno
import os
import socket
import struct
import sys
from pathlib import Path

import multicast

sys.path.append(str(Path(__file__).parent.parent))
from trains import END, IP_RECVERR, SOL_UDP, UDP_SEGMENT, Listener, payloads

SENDMMSG, GETSOCKOPT = {"x86_64": (307, 55), "aarch64": (269, 209)}[os.uname().machine]
QUESTIONS = {"the question": (SOL_UDP, UDP_SEGMENT), "the reports": (socket.IPPROTO_IP, IP_RECVERR)}


def instruction(code, yes, no, k):
    return struct.pack("=HBBI", code, yes, no, k)


def deny(what, answer):
    """Have the kernel answer sendmmsg, or getsockopt for one option, with this errno; false where it has no seccomp."""
    load, equal, result = 0x20, 0x15, 0x06
    wanted = [(0, SENDMMSG)]
    if what in QUESTIONS:
        level, name = QUESTIONS[what]
        wanted = [(0, GETSOCKOPT), (24, level), (32, name)]  # the second and the third argument: struct seccomp_data
    program = [
        part
        for i, (offset, value) in enumerate(wanted)
        for part in (instruction(load, 0, 0, offset), instruction(equal, 0, 2 * (len(wanted) - i) - 1, value))
    ]
    program += [instruction(result, 0, 0, 0x00050000 | answer), instruction(result, 0, 0, 0x7FFF0000)]
    memory = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(memory)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, header, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        print("no seccomp here:", os.strerror(ctypes.get_errno()))
        return False
    if what in QUESTIONS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.getsockopt(*QUESTIONS[what])
            except OSError as error:
                assert error.errno == answer  # noqa: PT017
            else:
                raise AssertionError("the filter is not in force")
    else:
        assert libc.sendmmsg(-1, ctypes.create_string_buffer(64), 0, 0) == -1
        assert ctypes.get_errno() == answer != errno.EBADF, "the filter is not in force"
    return True


def main():
    what, answer, group, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if not deny(what, answer):
        return
    listener = Listener(group, port, socket.if_nametoindex("lo"))
    data = payloads([10, 10, 10, 20, 21, 21])
    with multicast.open_sender(group, port, interface="lo", ttl=0) as tx:
        assert tx.send_batch(data) == 6
        tx.send(END)
    trains = listener.until_end()
    listener.close()
    assert [each for train in trains for each in train] == data
    print([[len(data) for data in train] for train in trains])


main()
