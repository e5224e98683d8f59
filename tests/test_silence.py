"""A receiver that gets nothing tells so: when, to whom, and whether the feed is quiet or can't come through.

Owns callbacks that note what they are told. Silences end when a test sends something: none is waited for that may not
come.
"""

from __future__ import annotations

import asyncio
import errno
import re
import select
import socket
import subprocess
import sys
import threading
import time
import warnings

import pytest
from links import FAR, IPV4, IPV6, RX
from net import open_descriptors, python_environment
from refusals import refused
from rig import DEADLINE
from seccomp import unavailable as no_seccomp

pytest_plugins = ["rig_fixtures", "healing_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")

SILENCE = 0.05  # seconds


# When, and to whom --------------------------------------------------------------------------------------------------


def test_a_silence_is_told_in_the_receiving_thread_again_and_again(opened, feed):
    told, when, threads = [], [], set()
    tx = opened.sender(feed)

    def on_silence(silence):
        told.append(silence)
        when.append(time.monotonic())
        threads.add(threading.get_ident())
        if len(told) in (3, 5):
            tx.send(b"x")

    rx = opened.receiver(feed, silence=SILENCE, on_silence=on_silence, timeout=None)
    rx.recv_batch()
    assert len(told) == 3
    rx.recv_batch()
    assert [each.seconds >= least * SILENCE for each, least in zip(told, (1, 2, 3, 1, 2), strict=True)] == [True] * 5
    assert told[3].seconds <= when[3] - when[2]  # counted anew, from what came meanwhile
    assert threads == {threading.get_ident()}
    assert rx.stats().silences == 5
    lo = (("lo", "up"),)
    assert {(each.interfaces, each.joined, each.dead) for each in told} == {(lo, True, False)}


def waiting_receive(rx):
    """Receive as one does whom a descriptor wakes."""
    while True:
        assert select.select([rx.fileno()], [], [], DEADLINE)[0]
        try:
            return rx.recv_batch(0)
        except BlockingIOError:
            continue


WAYS = {
    "without end": lambda rx: rx.recv_batch(None),
    "for some time": lambda rx: rx.recv_batch(DEADLINE),
    "iterating": next,
    "by the descriptor": waiting_receive,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_the_callback_raises_the_receive_raises_and_nothing_is_lost(opened, feed, way):
    tx = opened.sender(feed)

    def on_silence(_):
        tx.send(b"sent before it was raised")
        raise LookupError("the callback's")

    rx = opened.receiver(feed, silence=SILENCE, on_silence=on_silence, timeout=None)
    for turn in range(1, 4):
        with pytest.raises(LookupError, match="the callback's"):
            WAYS[way](rx)
        assert [bytes(view) for view in WAYS[way](rx)] == [b"sent before it was raised"]
        stats = rx.stats()
        assert (stats.datagrams, stats.silences, stats.drops, stats.blocks_in_use) == (turn, turn, 0, 0)


def test_an_event_loop_is_told_and_what_is_raised_is_its_reader_s(opened, feed):
    rx = opened.receiver(feed, silence=SILENCE, on_silence=lambda _: (_ for _ in ()).throw(LookupError("silent")))

    async def run():
        loop, raised = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def readable():
            try:
                rx.recv_batch(0)
            except BlockingIOError:
                pass
            except LookupError as error:
                loop.remove_reader(rx.fileno())
                raised.set_result(error)

        loop.add_reader(rx.fileno(), readable)
        return await asyncio.wait_for(raised, DEADLINE)

    assert str(asyncio.run(run())) == "silent"


def test_the_callback_may_ask_and_change_the_receiver_and_not_receive(opened, feed):
    seen = []
    tx = opened.sender(feed)

    def on_silence(_):
        if rx.memberships[1:]:
            rx.leave("239.255.254.253")
            tx.send(b"done")
        else:
            rx.join("239.255.254.253", "lo")
        with pytest.raises(RuntimeError, match="another thread"):
            rx.recv_batch(0)
        seen.append((rx.stats().silences, len(rx.memberships)))

    rx = opened.receiver(feed, silence=SILENCE, on_silence=on_silence, isolation=False)
    assert bytes(rx.recv_batch()[0]) == b"done"
    assert seen == [(1, 2), (2, 1)]


def test_close_while_the_callback_runs_returns_at_once(opened, feed):
    inside, closed, ended = threading.Event(), threading.Event(), []

    def on_silence(_):
        inside.set()
        assert closed.wait(DEADLINE)

    rx = opened.receiver(feed, silence=SILENCE, on_silence=on_silence, timeout=None)
    thread = threading.Thread(target=lambda: ended.append(list(rx)))
    thread.start()
    assert inside.wait(DEADLINE)
    rx.close()
    closed.set()
    thread.join(DEADLINE)
    assert ended == [[]]


def test_without_a_callback_it_is_logged_once_a_silence(opened, feed, caplog):
    tx = opened.sender(feed)
    rx = opened.receiver(feed, silence=SILENCE, timeout=None)
    while rx.stats().silences < 3:
        with pytest.raises(TimeoutError):
            rx.recv_batch(SILENCE)
    tx.send(b"x")
    rx.recv_batch()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("multicast", "WARNING")
    found = r"Silence\(seconds=[0-9.]+, interfaces=\(\('lo', 'up'\),\), joined=True, dead=False\)"
    assert re.fullmatch(rf"nothing was delivered for [0-9.]+ s: {found}", record.getMessage())


def test_what_is_not_delivered_breaks_no_silence(opened, multicast, feed):
    """What is sent to this host alone is foreign: the feed is as silent as before."""
    told = []

    def on_silence(silence):
        told.append(silence.seconds)
        if len(told) == 3:
            raise LookupError
        sock.sendto(b"foreign", ("127.0.0.1", feed[1]))

    groups = [feed[0], "239.255.254.251"]
    options = {"interface": "lo", "silence": SILENCE, "on_silence": on_silence}
    rx = opened.closing(multicast.open_receiver(groups, feed[1], **options))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(LookupError):
        rx.recv_batch()
    assert rx.stats().foreign == 2
    assert [each >= least * SILENCE for each, least in zip(told, (1, 2, 3), strict=True)] == [True] * 3


# Quiet or dead ------------------------------------------------------------------------------------------------------


def silence_found(feed, number):
    return feed.count("silences", number)["silences"][-1]


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_a_silence_says_whether_the_interface_is_there_up_and_joined(hosts, receiver, link, family):
    feed = receiver([family[0], family[0].replace("7:1", "7:2").replace("7.1", "7.2")], silence=SILENCE)
    feed.join(family[0], interface="feed1")

    def found():
        told = silence_found(feed, feed.stats()["silences"] + 1)
        assert dict(told["interfaces"])["feed1"] == "up"
        return dict(told["interfaces"])["feed0"], told["joined"], told["dead"]

    assert found() == ("up", True, False)
    hosts.tx.ip("link set feed0 down")
    while (now := found())[0] == "up":  # the kernel finds it a moment later
        assert now == ("up", True, False)
    assert now == ("no carrier", True, True)
    hosts.rx.ip("link set feed0 down")
    assert found()[::2] == ("down", True)
    link.delete()
    assert found() == ("gone", False, True)
    link.make()
    feed.count("rejoins", 1)
    assert found() == ("up", True, False)


def test_a_membership_that_the_kernel_lost_with_the_interface_in_place_is_found_by_the_silence(
    hosts, receiver, link, send
):
    """An MTU below 1280 takes IPv6 from an interface, and its groups with it (addrconf_notify of addrconf.c)."""
    feed = receiver(IPV6[0], silence=0.2)
    hosts.rx.ip("link set feed0 mtu 1000")
    hosts.rx.ip("link set feed0 mtu 1500", "address add 2001:db8::1/64 dev feed0 nodad")
    found = feed.count("rejoins", 1)
    assert found["silences"][-1]["interfaces"] == [["feed0", "up"]]
    assert (found["silences"][-1]["joined"], found["silences"][-1]["dead"], found["links_lost"]) == (False, True, 0)
    assert found["log"][0] == f"feed0 (index {RX}) is there, but the kernel has not all that was joined"
    send(IPV6, "end")
    feed.until("end")


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_a_group_that_another_receiver_took_along_is_found_by_the_silence(receiver, link, send, family):
    """Leaving late, once another interface has the index, is counted against who has joined on that (docs/healing.md).

    So when the first is closed, the kernel has the group no more, and the second hears nothing.
    """
    first, second = receiver(family[0]), receiver(family[0], silence=0.2)
    link.again()
    assert first.handle()["rejoins"] == second.handle()["rejoins"] == 1
    first.close()
    found = second.count("rejoins", 2)
    assert (found["links_lost"], found["silences"][-1]["joined"], found["silences"][-1]["dead"]) == (1, False, True)
    send(family, "end")
    assert second.until("end") == ["end"]


def test_data_from_one_link_hides_that_another_is_dead(hosts, receiver, link, send):
    """One receiver, one silence: for each link of its own, open a receiver for each."""
    feed = receiver([IPV4[0], FAR[0]], ["feed0", "feed1"], silence=3600)
    hosts.rx.ip("link set feed0 down")
    send(FAR, "end")
    assert feed.until("end") == ["end"]
    assert feed.stats()["silences"] == 0


# Where it can't be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected", "said"),
    [
        ({"silence": 1, "self_healing": False}, ValueError, "silence needs self_healing"),
        ({"self_healing": "no"}, TypeError, "self_healing is True or False, not 'no'"),
        ({"silence": "1"}, TypeError, "silence is a number of seconds or None, not '1'"),
        ({"silence": 0}, ValueError, "silence is None or from 0.01 to 1000000000 seconds, not 0"),
        ({"on_silence": print}, ValueError, "on_silence is never called without silence"),
        ({"silence": 1, "on_silence": 1}, TypeError, "on_silence is callable or None, not 1"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_opened(multicast, feed, monkeypatch, options, expected, said):
    monkeypatch.setattr(multicast.skt, "_new_socket", None)  # calling it would be another error
    refused(expected, lambda: multicast.open_receiver(*feed, interface="lo", **options), f"open_receiver: {said}")


def test_on_another_system_nothing_is_watched_and_silence_is_refused(multicast, feed, monkeypatch):
    before = open_descriptors()
    monkeypatch.setattr(sys, "platform", "darwin")
    with multicast.open_receiver(*feed, interface="lo") as rx:
        assert rx._watch is None if multicast.BACKEND == "stdlib" else rx.stats().links_lost == 0
    with pytest.raises(OSError, match=r"open_receiver: .*needs Linux: rtnetlink\(7\)") as caught:
        multicast.open_receiver(*feed, interface="lo", silence=1)
    assert caught.value.errno == errno.ENOSYS
    assert open_descriptors() == before


# As sandboxes have it: socket(AF_NETLINK, ...) answers with the errno given, all else goes.
SANDBOX = """
import errno, os, socket, sys, warnings
from seccomp import enter

group, port, answer = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if refused := enter(("socket", {0: socket.AF_NETLINK}, answer)):
    print("no seccomp here:", refused)
    raise SystemExit
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    raise AssertionError("the filter is not in force")
except OSError as error:
    assert error.errno == answer

import multicast

lo = socket.if_nametoindex("lo")
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    multicast.open_receiver(group, port, interface="lo", self_healing=False).close()
    assert not warned, warned[0]
    for interface in ("lo", lo):
        with (
            multicast.open_receiver(group, port, interface=interface, timeout=10) as rx,
            multicast.open_sender(group, port, interface=interface, ttl=0) as tx,
        ):
            tx.send(b"x")
            assert bytes(rx.recv_batch()[0]) == b"x"
    (one,) = warned
    assert one.category is RuntimeWarning
    print(one.message)
for options in ({"interface": "lo", "silence": 1}, {"interface": "nosuch0"}, {"interface": "127.0.0.1"}):
    before = len(os.listdir("/proc/self/fd"))
    try:
        multicast.open_receiver(group, port, **options)
    except OSError as error:
        print(errno.errorcode[error.errno], error.strerror)
    assert len(os.listdir("/proc/self/fd")) == before
"""


@pytest.mark.parametrize("answer", [errno.EAFNOSUPPORT, errno.EPERM], ids=["EAFNOSUPPORT", "EPERM"])
def test_a_sandbox_without_netlink_is_told_once_and_silence_is_refused(multicast, feed, answer):
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", SANDBOX, *map(str, feed), str(answer)],
        env=python_environment(multicast, tests=True),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.stdout.startswith("no seccomp here: "):
        no_seccomp(done.stdout.partition(": ")[2])
    assert (done.returncode, done.stderr) == (0, "")
    name, words = errno.errorcode[answer], {errno.EAFNOSUPPORT: "Address family not supported by protocol"}
    why = words.get(answer, "Operation not permitted")
    assert done.stdout.splitlines() == [
        f"[Errno {answer}] open_receiver: watching the interfaces: {why}: receivers will not heal "
        "(self_healing=False accepts that without this warning)",
        f"{name} open_receiver: watching the interfaces: {why}",
        f"ENODEV open_receiver {feed[0]}: no interface 'nosuch0'",
        f"{name} open_receiver {feed[0]}: looking for the interface that has the address 127.0.0.1: {why}",
    ]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_the_process_has_run_out_of_is_an_error_and_no_warning(multicast, feed, monkeypatch, number):
    """It may be there the next time; a receiver that does not heal would be one for good."""

    def out(*_, **__):
        raise OSError(number, "out of it")

    before = open_descriptors()
    monkeypatch.setattr(multicast.skt, "Watch", out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match="out of it") as caught:
            multicast.open_receiver(*feed, interface="lo")
    assert caught.value.errno == number
    assert open_descriptors() == before
