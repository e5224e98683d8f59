"""Bad arguments of a poller, and what a call that is refused leaves behind, which is nothing; both backends alike."""

from __future__ import annotations

import errno
import inspect
import math
import resource
import socket
import sys

import pytest
from net import open_descriptors
from refusals import HUGE, refused, shown
from seccomp import denied

pytest_plugins = ["poller_fixtures"]
EPOLL_CTL_ADD = 1  # sys/epoll.h
linux = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink and epoll are Linux's")


# Arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("value", [None, 5, 1.5, "rx", b"rx", object(), int, [None], [5], ["rx"], [[]]], ids=shown)
def test_what_are_no_receivers_is_a_type_error(multicast, value):
    refused(TypeError, lambda: multicast.Poller(value), "Poller: receiver")


def test_one_receiver_or_a_poller_is_not_several(multicast, pipes, polled):
    """Each could be iterated, and that would receive."""
    ((rx, far),) = pipes(1)
    far.send(b"x")
    for value in (rx, polled(rx)):
        refused(TypeError, lambda: multicast.Poller(value), "Poller: receivers is several", repr(value))  # noqa: B023
    assert rx.stats().datagrams == 0


@pytest.mark.parametrize("value", [None, 5, "rx", object(), socket.socket, []], ids=shown)
def test_what_is_no_receiver_is_a_type_error(polled, value):
    poller = polled()
    for operation in ("register", "unregister"):
        words = f"{operation}: receiver is a Receiver of the backend in force, not "
        refused(TypeError, lambda: getattr(poller, operation)(value), words)  # noqa: B023


def test_a_receiver_of_the_other_backend_is_a_type_error(each_way):
    one, other = each_way
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far, other.Receiver(near) as rx, one.Poller() as poller:
        refused(TypeError, lambda: poller.register(rx), "register: receiver is a Receiver of the backend in force")
        refused(TypeError, lambda: one.Poller([rx]), "Poller: receiver")


TIMEOUTS = {
    "Poller": lambda m, poller, value: m.Poller(timeout=value),
    "poll": lambda m, poller, value: poller.poll(value),
}


@pytest.mark.parametrize("operation", TIMEOUTS)
def test_a_bad_timeout_is_refused(multicast, pipes, polled, operation):
    ((rx, far),) = pipes(1)
    far.send(b"a call that lets it pass ends at once")
    poller = polled(rx)
    for value in ("1", b"1", [1], True, 1j, object()):
        call = lambda: TIMEOUTS[operation](multicast, poller, value)  # noqa: B023, E731
        refused(TypeError, call, f"{operation}: timeout is a number of seconds or None, not ")
    for value in (-1, math.nan, math.inf, 1e10, HUGE):
        call = lambda: TIMEOUTS[operation](multicast, poller, value)  # noqa: B023, E731
        refused(ValueError, call, f"{operation}: timeout is None or from 0 to 1000000000 seconds")
    assert poller.poll(1e9) == [rx]


def test_it_is_made_once(polled, pipes):
    ((rx, _),) = pipes(1)
    poller = polled(rx)
    refused(RuntimeError, lambda: poller.__init__([rx]), "Poller: already initialised")
    assert len(poller) == 1
    refused(TypeError, lambda: type("Mine", (type(poller),), {}), "not an acceptable base type")
    refused(TypeError, lambda: poller.__reduce_ex__(5), "")


def test_a_process_out_of_descriptors_loses_none(multicast, pipes):
    ((rx, _),) = pipes(1)
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [number for number in range(len(before) + 20) if str(number) not in before]
    failures, made = [], None
    while made is None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[len(failures)], hard))
        try:
            made = multicast.Poller([rx])
        except OSError as error:
            failures.append(error.errno)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if made is None:
            assert open_descriptors() == before
    made.close()
    assert open_descriptors() == before
    assert set(failures) == {errno.EMFILE}
    assert len(failures) >= 2  # what waits, and what wakes it


@linux
def test_a_limit_that_is_reached_is_named_and_nothing_is_registered(pipes, polled):
    (rx, far), (other, _) = pipes(2)
    poller = polled(other)
    call = lambda: denied(lambda: poller.register(rx), ("epoll_ctl", {1: EPOLL_CTL_ADD}, errno.ENOSPC))  # noqa: E731
    refused(errno.ENOSPC, call, "register: ", "fs.epoll.max_user_watches")
    assert (len(poller), rx in poller) == (1, False)
    far.send(b"x")
    assert poller.poll(0) == []
    poller.register(rx)
    assert poller.poll() == [rx]


# Both backends, side by side ----------------------------------------------------------------------------------------


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_both_have_the_same_names(both):
    native, twin = (package.Poller for package in both)
    assert public(native) == public(twin)
    for name in ("__iter__", "__next__", "__len__", "__contains__", "__enter__", "__exit__"):
        assert hasattr(native, name)
        assert hasattr(twin, name)


def test_it_is_made_by_the_arguments_that_its_docstring_says(both):
    native, twin = (package.Poller for package in both)
    stated = "Poller(receivers=(), *, timeout=None, spin=None)"
    assert stated in native.__doc__
    parameters = inspect.signature(twin).parameters.values()
    assert f"Poller({', '.join(str(each.replace(annotation=each.empty)) for each in parameters)})" == stated.replace(
        "*, ", ""
    )
    assert [each.kind.name for each in parameters] == ["POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY", "KEYWORD_ONLY"]
    native((), timeout=None, spin=None).close()
    refused(TypeError, lambda: native((), None), "")
