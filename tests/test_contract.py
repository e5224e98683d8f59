"""The names that the specification fixes, verbatim, on both backends."""

import socket
import sys
import types


def test_gen_socket_returns_exactly_a_socket(multicast):
    sock = multicast.genSocket()
    try:
        assert type(sock) is socket.socket
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname() == ("0.0.0.0", 0)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 1
        if sys.platform == "linux":  # no other system has it
            assert sock.getsockopt(socket.IPPROTO_IP, 49) == 0  # IP_MULTICAST_ALL
    finally:
        sock.close()


def test_the_functions_are_plain_functions(multicast):
    for name in ("genSocket", "endSocket"):
        function = getattr(multicast.skt, name)
        assert type(function) is types.FunctionType
        assert type(function).__name__ == "function"
        assert str(function).startswith(f"<function {name} at ")
        assert getattr(multicast, name) is function


def test_end_socket_closes_and_returns_none(multicast):
    sock = multicast.genSocket()
    assert multicast.skt.endSocket(sock) is None
    assert sock.fileno() == -1
    assert multicast.skt.endSocket(sock) is None
    assert multicast.skt.endSocket(multicast.skt.genSocket()) is None


def test_end_socket_does_nothing_on_what_is_no_open_socket(multicast):
    assert multicast.endSocket() is None
    assert multicast.endSocket(None) is None
    for thing in (1, "socket", b"", object(), multicast):
        assert multicast.endSocket(thing) is None


def test_the_module_says_what_it_is(multicast):
    assert multicast.skt.__module__ == "multicast.skt"
    assert multicast.skt.__name__ == "multicast.skt"
    assert multicast.skt.__package__ == "multicast"
    assert multicast.skt.__package__ == multicast.__package__
    assert multicast.skt.__file__.endswith("multicast/skt.py")
    assert multicast.socket is socket


def test_every_public_name_is_the_doors(multicast):
    for name in multicast.skt.__all__:
        assert getattr(multicast, name) is getattr(multicast.skt, name)
    assert set(multicast.__all__) - set(multicast.skt.__all__) == {"__version__", "skt", "socket"}
    assert len(set(multicast.__all__)) == len(multicast.__all__)


def test_the_hot_classes_reach_the_user_unwrapped(multicast):
    backend = multicast.skt._backend
    assert multicast.Receiver is backend.Receiver
    assert multicast.Batch is backend.Batch
    assert multicast.Sender is backend.Sender
    assert multicast.Poller is backend.Poller
