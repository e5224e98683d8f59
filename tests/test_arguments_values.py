"""Bad numbers, booleans, times, data: refused by the exception of the kind, in words that name call and argument."""

from __future__ import annotations

import array
import contextlib
import decimal
import errno
import signal
import socket

import pytest
from refusals import GROUP, HUGE, PORT, refused, shown

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


@pytest.fixture
def sock(multicast):
    """A socket to be joined."""
    made = multicast.genSocket()
    yield made
    made.close()


# Numbers -----------------------------------------------------------------------------------------------------------

# What is called and its argument; the least and the most that it takes; the call.
NUMBERS = {
    "set_multicast_ttl ttl": (0, 255, lambda m, sock, n: m.set_multicast_ttl(sock, n)),
    "set_receive_buffer nbytes": (1, 2**31 - 1, lambda m, sock, n: m.set_receive_buffer(sock, n)),
    "open_receiver port": (1, 65_535, lambda m, sock, n: m.open_receiver(GROUP, n, interface="lo")),
    "open_sender port": (1, 65_535, lambda m, sock, n: m.open_sender(GROUP, n, interface="lo", ttl=0)),
    "Receiver batch_size": (1, 1024, lambda m, sock, n: m.Receiver(sock, batch_size=n)),
    "Receiver datagram_size": (1, 65_535, lambda m, sock, n: m.Receiver(sock, datagram_size=n)),
    "Receiver max_blocks": (1, 1_000_000, lambda m, sock, n: m.Receiver(sock, max_blocks=n)),
}
# open_receiver and open_sender hand these on: their errors are those of the step.
HANDED_ON = {
    "set_multicast_ttl ttl": lambda m, sock, n: m.open_sender(GROUP, PORT, interface="lo", ttl=n),
    "set_receive_buffer nbytes": lambda m, sock, n: m.open_receiver(GROUP, PORT, interface="lo", receive_buffer=n),
    "Receiver batch_size": lambda m, sock, n: m.open_receiver(GROUP, PORT, interface="lo", batch_size=n),
    "Receiver datagram_size": lambda m, sock, n: m.open_receiver(GROUP, PORT, interface="lo", datagram_size=n),
    "Receiver max_blocks": lambda m, sock, n: m.open_receiver(GROUP, PORT, interface="lo", max_blocks=n),
}
NUMBER_CALLS = [pytest.param(what, call, id=what) for what, (_, _, call) in NUMBERS.items()]
NUMBER_CALLS += [pytest.param(what, call, id=f"{what}, handed on") for what, call in HANDED_ON.items()]
NO_NUMBER = [True, False, 1.0, 1.5, float("nan"), float("inf"), "1", b"1", bytearray(b"1"), [1], 1j, object()]
OPTIONAL = {"set_receive_buffer nbytes, handed on", "Receiver max_blocks", "Receiver max_blocks, handed on"}


def numbered(what: str, text: str) -> None:
    """Check that an error about a number says of which call and which argument it is."""
    assert text.startswith(f"{what.replace(' ', ': ')} is an integer from {NUMBERS[what][0]} to {NUMBERS[what][1]}")


@pytest.mark.parametrize("value", NO_NUMBER, ids=shown)
@pytest.mark.parametrize(("what", "call"), NUMBER_CALLS)
def test_what_is_no_integer_is_a_type_error(multicast, sock, what, call, value):
    error = refused(TypeError, lambda: call(multicast, sock, value), repr(value))
    numbered(what, str(error))


@pytest.mark.parametrize(("what", "call"), NUMBER_CALLS)
def test_an_integer_out_of_range_is_a_value_error(multicast, sock, what, call):
    low, high, _ = NUMBERS[what]
    for value in (low - 1, high + 1, -1, -(2**63), 2**31, 2**32 + low, 2**63, 2**64 + low):
        error = refused(ValueError, lambda: call(multicast, sock, value), str(value))  # noqa: B023
        numbered(what, str(error))


@pytest.mark.parametrize(
    ("what", "call"), [each for each in NUMBER_CALLS if each.id not in OPTIONAL], ids=lambda value: None
)
def test_none_is_no_integer(multicast, sock, what, call):
    error = refused(TypeError, lambda: call(multicast, sock, None), "None")
    numbered(what, str(error))


def test_an_index_of_an_integer_like_counts(multicast, sock):
    class Seven:
        def __index__(self):
            return 7

    multicast.set_multicast_ttl(sock, Seven())
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 7


BOOLEANS = {
    "set_multicast_loopback: enabled": lambda m, sock, value: m.set_multicast_loopback(sock, value),
    "open_receiver: exclusive": lambda m, sock, value: m.open_receiver(GROUP, PORT, interface="lo", exclusive=value),
}
NO_BOOLEAN = [None, 2, -1, "yes", "", b"", 0.5, float("nan"), [], object(), decimal.Decimal("sNaN")]


@pytest.mark.parametrize("value", [None, True, 1, 0, 1.5, b"include", ["include"], object()], ids=shown)
def test_a_mode_of_a_wrong_type_is_a_type_error(multicast, sock, value):
    call = lambda: multicast.set_source_filter(sock, GROUP, value, [], "lo")  # noqa: E731
    refused(TypeError, call, 'set_source_filter: mode is "include" or "exclude", not ')


@pytest.mark.parametrize("value", ["", "Include", "INCLUDE", "include ", "any", "in", "\ud800", "x" * 9999], ids=shown)
def test_another_mode_is_a_value_error(multicast, sock, value):
    call = lambda: multicast.set_source_filter(sock, GROUP, value, [], "lo")  # noqa: E731
    refused(ValueError, call, 'set_source_filter: mode is "include" or "exclude", not ')


@pytest.mark.parametrize("value", NO_BOOLEAN, ids=shown)
@pytest.mark.parametrize("what", BOOLEANS)
def test_what_is_no_boolean_is_a_type_error(multicast, sock, what, value):
    refused(TypeError, lambda: BOOLEANS[what](multicast, sock, value), f"{what} is True or False, not ")


@pytest.mark.parametrize("what", BOOLEANS)
def test_an_array_of_booleans_is_no_boolean(multicast, sock, what):
    numpy = pytest.importorskip("numpy")
    value = numpy.array([True, False])
    refused(TypeError, lambda: BOOLEANS[what](multicast, sock, value), f"{what} is True or False, not ")


def test_a_sender_opened_with_no_boolean_is_a_type_error(multicast):
    call = lambda: multicast.open_sender(GROUP, PORT, interface="lo", ttl=0, loopback="no")  # noqa: E731
    refused(TypeError, call, "set_multicast_loopback: enabled is True or False, not 'no'")


# Too long to print: Python refuses to turn such an integer into text, and a text into such an integer.
TOO_LONG = {
    "join_group: group": (TypeError, lambda m, sock, n: m.join_group(sock, n, "lo")),
    "join_group: source": (TypeError, lambda m, sock, n: m.join_group(sock, GROUP, "lo", n)),
    f"join_group {GROUP}: an interface's index": (ValueError, lambda m, sock, n: m.join_group(sock, GROUP, n)),
    "set_multicast_ttl: ttl": (ValueError, lambda m, sock, n: m.set_multicast_ttl(sock, n)),
    "set_multicast_loopback: enabled": (TypeError, lambda m, sock, n: m.set_multicast_loopback(sock, n)),
    "set_receive_buffer: sock": (TypeError, lambda m, sock, n: m.set_receive_buffer(n, 4096)),
    "Receiver: batch_size": (ValueError, lambda m, sock, n: m.Receiver(sock, batch_size=n)),
    "Receiver: timeout": (ValueError, lambda m, sock, n: m.Receiver(sock, timeout=n)),
}


@pytest.mark.parametrize("what", TOO_LONG)
def test_an_integer_too_long_to_print_is_refused_as_any_other(multicast, sock, what):
    expected, call = TOO_LONG[what]
    for value in (HUGE, -HUGE):
        refused(expected, lambda: call(multicast, sock, value), f"{what} is ")  # noqa: B023


# Times -------------------------------------------------------------------------------------------------------------

TIMEOUT_CALLS = {
    "Receiver": lambda m, receiver, value: m.Receiver(receiver.socket, timeout=value),
    "Receiver, handed on": lambda m, receiver, value: m.open_receiver(GROUP, PORT, interface="lo", timeout=value),
    "recv_batch": lambda m, receiver, value: receiver.recv_batch(timeout=value),
}
NO_TIME = ["1", "", b"1", [1], (), {}, 1j, object(), int]
OUT_OF_TIME = [-1, -0.001, -5e-324, float("nan"), float("inf"), -float("inf"), 1e9 + 1, 10**10, 2**64, 1e300, 10**400]


@pytest.mark.parametrize("value", NO_TIME, ids=shown)
@pytest.mark.parametrize("operation", TIMEOUT_CALLS)
def test_what_is_no_time_is_a_type_error(multicast, opened, operation, value):
    receiver, far = opened.pipe()
    far.send(b"a call that lets it pass ends at once")
    call = lambda: TIMEOUT_CALLS[operation](multicast, receiver, value)  # noqa: E731
    refused(TypeError, call, f"{operation.partition(',')[0]}: timeout is a number of seconds or None, not ")


@pytest.mark.parametrize("value", [bytearray(b"1"), memoryview(b"1"), array.array("B", b"1")], ids=shown)
def test_text_in_a_buffer_is_no_time_either(opened, value):
    receiver, far = opened.pipe()
    far.send(b"a call that lets it pass ends at once")
    refused(TypeError, lambda: receiver.recv_batch(value), "recv_batch: timeout is a number of seconds or None, not ")


@pytest.mark.parametrize("value", OUT_OF_TIME, ids=shown)
@pytest.mark.parametrize("operation", TIMEOUT_CALLS)
def test_a_time_out_of_range_is_a_value_error(multicast, opened, operation, value):
    receiver, far = opened.pipe()
    far.send(b"a call that lets it pass ends at once")
    call = lambda: TIMEOUT_CALLS[operation](multicast, receiver, value)  # noqa: E731
    refused(ValueError, call, f"{operation.partition(',')[0]}: timeout is None or from 0 to 1000000000 seconds")


def test_the_longest_time_is_waited(opened):
    receiver, far = opened.pipe()
    before = signal.signal(signal.SIGALRM, lambda *_: far.send(b"came while it waited"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert bytes(receiver.recv_batch(timeout=1e9)[0]) == b"came while it waited"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_ellipsis_stands_for_the_receivers_own_timeout_in_a_call_alone(multicast, opened):
    receiver, _ = opened.pipe(timeout=0)
    refused(errno.EAGAIN, lambda: receiver.recv_batch(timeout=...), "recv_batch: ", "timeout is 0")
    refused(TypeError, lambda: multicast.Receiver(receiver.socket, timeout=...), "Receiver: timeout ")


# Data to send ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sender(multicast, opened):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.closing(far)
    return opened.closing(multicast.Sender(near))


@pytest.mark.parametrize("value", [None, 5, True, 1.5, "text", "\ud800", [b"x"], object(), HUGE], ids=shown)
def test_what_is_no_buffer_is_a_type_error(sender, value):
    refused(TypeError, lambda: sender.send(value), "bytes-like object", type(value).__name__)
    refused(TypeError, lambda: sender.send_batch([value]), "bytes-like object", type(value).__name__)


@pytest.mark.parametrize("value", [None, 5, True, 1.5, object()], ids=shown)
def test_what_is_no_iterable_of_buffers_is_a_type_error(sender, value):
    refused(TypeError, lambda: sender.send_batch(value), type(value).__name__)


@pytest.mark.parametrize("value", [b"abc", "abc", bytearray(b"abc"), memoryview(b"abc")], ids=shown)
def test_one_buffer_is_no_iterable_of_buffers(sender, value):
    refused(TypeError, lambda: sender.send_batch(value), "bytes-like object")


def test_a_buffer_with_gaps_is_a_buffer_error(sender):
    gaps = memoryview(b"abcdef")[::2]
    refused(BufferError, lambda: sender.send(gaps), "contiguous")
    refused(BufferError, lambda: sender.send_batch([gaps]), "contiguous")


def test_an_array_with_gaps_is_a_buffer_error(sender):
    numpy = pytest.importorskip("numpy")
    for gaps in (numpy.arange(8)[::2], numpy.ones((2, 3), order="F")):
        refused(BufferError, lambda: sender.send(gaps), "contiguous")  # noqa: B023
        refused(BufferError, lambda: sender.send_batch([gaps]), "contiguous")  # noqa: B023


def test_a_released_view_is_a_value_error(sender):
    view = memoryview(b"abc")
    view.release()
    refused(ValueError, lambda: sender.send(view), "released")


@pytest.mark.parametrize("value", ["text", 5, memoryview(b"abcdef")[::2]], ids=["text", "integer", "gaps"])
def test_what_can_not_be_sent_names_the_call(sender, value):
    for operation, call in (("send", lambda: sender.send(value)), ("send_batch", lambda: sender.send_batch([value]))):
        with pytest.raises((TypeError, BufferError), match=f"^{operation}: "):
            call()


def test_more_than_a_datagram_holds_is_too_long(multicast, opened, feed):
    too_long = bytes(65_508)
    sender = opened.sender(feed)
    refused(errno.EMSGSIZE, lambda: sender.send(too_long), "send")
    refused(errno.EMSGSIZE, lambda: sender.send_batch([too_long, b"x"]), "send_batch")


@pytest.mark.parametrize("value", [b"x", 5, None, [], "text"], ids=shown)
def test_a_closed_sender_is_a_bad_descriptor_whatever_it_is_given(sender, value):
    sender.close()
    refused(errno.EBADF, lambda: sender.send(value), "send: already closed")
    refused(errno.EBADF, lambda: sender.send_batch([value]), "send_batch: already closed")


def test_a_closed_receiver_is_a_bad_descriptor(opened):
    receiver, _ = opened.pipe()
    receiver.close()
    for timeout in (None, 0, 1, ...):
        refused(errno.EBADF, lambda: receiver.recv_batch(timeout), "recv_batch: already closed")  # noqa: B023
    assert list(receiver) == []


# No arguments: made, and never initialised --------------------------------------------------------------------------


def test_a_receiver_that_was_never_initialised_is_closed(native):
    for fails in (lambda receiver: None, lambda receiver: receiver.__init__(None)):
        receiver = native.Receiver.__new__(native.Receiver)
        with contextlib.suppress(TypeError):
            fails(receiver)
        assert (receiver.closed, receiver.fileno(), receiver.close(), list(receiver)) == (True, -1, None, [])
        refused(errno.EBADF, receiver.recv_batch, "recv_batch: already closed")
        stats = receiver.stats().as_dict()
        assert {name: stats[name] or 0 for name in stats} == dict.fromkeys(stats, 0)
        assert (receiver.batch_size, receiver.datagram_size) == (0, 0)
        assert "closed" in repr(receiver)


def test_a_sender_that_was_never_initialised_is_closed(native):
    sender = native.Sender.__new__(native.Sender)
    assert (sender.closed, sender.fileno(), sender.close()) == (True, -1, None)
    refused(errno.EBADF, lambda: sender.send(b"x"), "send: already closed")
    assert "closed" in repr(sender)


def test_a_batch_that_nobody_received_is_empty(native):
    batch = native.Batch.__new__(native.Batch)
    assert (len(batch), list(batch), batch[:], bytes(batch)) == (0, [], [], b"")
    for column in (batch.offsets, batch.lengths, batch.real_lengths, batch.truncated):
        assert column.tolist() == []
    with pytest.raises(IndexError):
        batch[0]
