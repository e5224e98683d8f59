"""Sends trains where a seccomp filter answers one system call with an errno, and prints the lengths as they came."""

import ctypes
import errno
import socket
import sys
from pathlib import Path

import multicast

sys.path.append(str(Path(__file__).parent.parent))
from seccomp import enter
from trains import END, IP_RECVERR, SOL_UDP, UDP_SEGMENT, Listener, payloads

QUESTIONS = {"the question": (SOL_UDP, UDP_SEGMENT), "the reports": (socket.IPPROTO_IP, IP_RECVERR)}


def deny(what, answer):
    """Have the kernel answer sendmmsg, or getsockopt for one option, with this errno; false where it has no seccomp."""
    denial = ("sendmmsg", {}, answer)
    if what in QUESTIONS:
        level, name = QUESTIONS[what]
        denial = ("getsockopt", {1: level, 2: name}, answer)
    if refused := enter(denial):
        print("no seccomp here:", refused)
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
        libc = ctypes.CDLL(None, use_errno=True)
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
