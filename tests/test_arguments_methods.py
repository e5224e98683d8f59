"""Bad arguments of the methods by which a receiver changes what it has joined: refused as the verbs refuse them."""

from __future__ import annotations

import errno
import ipaddress

import pytest
from filters import EXCLUDE, source_filter
from refusals import GROUP, GROUP6, HUGE, LO, NO_INDEX, UNASSIGNED, refused, shown

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")

SOURCE = "192.0.2.1"
# Each with a group, a source and an interface in its place.
CALLS = {
    "join": lambda rx, group=GROUP, source=None, interface="lo": rx.join(group, interface, source),
    "leave": lambda rx, group=GROUP, source=None, interface="lo": rx.leave(group, interface, source),
    "block": lambda rx, group=GROUP, source=SOURCE, interface="lo": rx.block(group, source, interface),
    "unblock": lambda rx, group=GROUP, source=SOURCE, interface="lo": rx.unblock(group, source, interface),
    "set_source_filter": lambda rx, group=GROUP, source=(), interface="lo": rx.set_source_filter(
        group, "exclude", source, interface
    ),
}


@pytest.fixture
def receiver(opened, feed):
    """A receiver that has joined a group, from any source; and afterwards still has."""
    made = opened.receiver(([feed[0], GROUP], feed[1]))
    before = made.memberships
    yield made
    assert made.memberships == before
    assert source_filter(made.socket, GROUP, LO) == (EXCLUDE, set())


@pytest.mark.parametrize("value", [None, 5, True, 1.5, float("nan"), b"239.255.0.1", [GROUP], object()], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_a_group_of_a_wrong_type_is_a_type_error(receiver, operation, value):
    refused(TypeError, lambda: CALLS[operation](receiver, group=value), f"{operation}: group ")


@pytest.mark.parametrize("value", ["", "lo", "239.255.0.256", "239.255.0.1\0", "\ud800", SOURCE, "::1"], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_what_is_no_group_is_a_value_error(receiver, operation, value):
    refused(ValueError, lambda: CALLS[operation](receiver, group=value), f"{operation}: ")


@pytest.mark.parametrize("operation", ["join", "leave", "set_source_filter"])
def test_a_group_must_be_of_the_receivers_family(receiver, operation):
    refused(ValueError, lambda: CALLS[operation](receiver, group=GROUP6), f"{operation} {GROUP6}: ", "AF_INET")


@pytest.mark.parametrize("value", [5, True, 1.5, float("nan"), b"192.0.2.1", object(), HUGE], ids=shown)
@pytest.mark.parametrize("several", [False, True], ids=["one", "among others"])
@pytest.mark.parametrize("operation", CALLS)
def test_a_source_of_a_wrong_type_is_a_type_error(receiver, operation, value, several):
    value = [SOURCE, value] if several else value
    refused(TypeError, lambda: CALLS[operation](receiver, source=value), f"{operation}: source ")


@pytest.mark.parametrize("value", ["", "lo", "192.0.2", GROUP, "0.0.0.0", "255.255.255.255", "2001:db8::1"], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_what_is_no_source_is_a_value_error(receiver, operation, value):
    refused(ValueError, lambda: CALLS[operation](receiver, source=value), f"{operation}: ")
    if operation not in ("block", "unblock"):
        refused(ValueError, lambda: CALLS[operation](receiver, source=iter([SOURCE, value])), f"{operation}: ")


@pytest.mark.parametrize("operation", ["join", "leave"])
def test_no_source_at_all_is_a_value_error(receiver, operation):
    for value in ([], (), set(), iter(())):
        refused(ValueError, lambda: CALLS[operation](receiver, source=value), f"{operation}: no source")  # noqa: B023


@pytest.mark.parametrize("value", [True, False, 1.0, float("nan"), b"lo", [], ["lo"], object(), 1j], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_an_interface_of_a_wrong_type_is_a_type_error(receiver, operation, value):
    refused(TypeError, lambda: CALLS[operation](receiver, interface=value), f"{operation} {GROUP}", ": interface ")


@pytest.mark.parametrize("value", [0, -1, 2**31, 2**64], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_an_index_out_of_range_is_a_value_error(receiver, operation, value):
    refused(
        ValueError, lambda: CALLS[operation](receiver, interface=value), f"{operation} {GROUP}", "index", str(value)
    )


@pytest.mark.parametrize("value", ["", "nosuch0", "LO", "lo\0", "\ud800", "n" * 16], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_a_name_that_no_interface_has_is_no_device(receiver, operation, value):
    call = lambda: CALLS[operation](receiver, interface=value)  # noqa: E731
    refused(errno.ENODEV, call, f"{operation} {GROUP}", f": no interface {value!r}", "there are: ", "lo")


@pytest.mark.parametrize("operation", CALLS)
def test_an_index_that_no_interface_has_is_refused(receiver, operation):
    number = errno.EADDRNOTAVAIL if operation == "leave" else errno.ENODEV
    refused(number, lambda: CALLS[operation](receiver, interface=NO_INDEX), f"{operation} {GROUP}", str(NO_INDEX))


@pytest.mark.parametrize("value", [UNASSIGNED, ipaddress.ip_address(UNASSIGNED), "2001:db8::dead"], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_an_address_that_no_interface_has_is_not_available(receiver, operation, value):
    call = lambda: CALLS[operation](receiver, interface=value)  # noqa: E731
    refused(errno.EADDRNOTAVAIL, call, f"{operation} {GROUP}", ": no interface has the address ", str(value))


@pytest.mark.parametrize("value", [None, True, 1, b"include", ["include"], "", "Include", "any", "\ud800"], ids=shown)
def test_a_mode_is_one_of_two_words(receiver, value):
    expected = ValueError if isinstance(value, str) else TypeError
    call = lambda: receiver.set_source_filter(GROUP, value, [], "lo")  # noqa: E731
    refused(expected, call, 'set_source_filter: mode is "include" or "exclude", not ')
