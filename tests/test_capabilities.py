"""What works here: each answer held against the feature in use, and each reason against what was denied."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huge_pages
import pytest
from net import python_environment
from rig import DEADLINE, unavailable
from seccomp import denied
from uses import LO, Uses

pytest_plugins = ["rig_fixtures"]

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is neither the feature nor the denial")

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def steady():
    """Nobody reserves huge pages between two answers, or between an answer and the use."""
    with huge_pages.steady():
        yield


BATCHES = ["recvmmsg", "sendmmsg"]
COLUMNS = ["source", "destination", "interface", "ttl", "tos", "drops"]
ON_A_PAIR = ["software_timestamps", "hardware_timestamps", "real_lengths", "filter"]
ON_UDP = [
    "source_specific",
    "source_filters",
    *COLUMNS,
    "kernel_drops",
    "receive_buffer_force",
    "gro",
    "segmentation",
    "busy_poll",
    "error_queue",
]
FAMILIES = ["ipv4", "ipv6", "isolation_ipv4", "isolation_ipv6"]
OTHERS = ["self_healing", "silence_watchdog"]
OWN_SLOTS = ["memory", "transparent_hugepages", "reserved_hugepages"]
FIELDS = [*BATCHES, *OWN_SLOTS, *FAMILIES, "interfaces", *ON_UDP, *ON_A_PAIR, *OTHERS]
EVERYWHERE = ["ipv4", "ipv6", "interfaces", "source_specific", "source"]  # what systems other than Linux are tried for

IP, IPV6, SOCKET, UDP = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET, 17


def missing(package) -> dict[str, str]:
    """What does not work now, and why."""
    return {each.name: each.why for each in package.capabilities() if not each}


@pytest.fixture
def uses(multicast, feed):
    return Uses(multicast, feed, ipv6=multicast.capabilities().ipv6.works)


# The answer --------------------------------------------------------------------------------------------------------


def test_it_has_a_field_for_each_feature_and_iterates_over_them(multicast):
    found = multicast.capabilities()
    assert type(found) is multicast.Capabilities
    assert [each.name for each in found] == list(found.as_dict()) == list(multicast.Capabilities.__slots__)
    assert set(multicast.COLUMNS) < set(found.as_dict()) == set(FIELDS)
    for each in found:
        assert type(each) is multicast.Capability
        assert getattr(found, each.name) is each
        assert bool(each) is each.works is (each.why == "")
        assert "\n" not in each.why
    assert pickle.loads(pickle.dumps(found.as_dict()["ipv4"].as_dict())) == found.ipv4.as_dict()


def test_every_field_is_explained_in_a_line(multicast):
    heads = re.findall(r"^ *- ([a-z_0-9, ]+):", multicast.Capabilities.__doc__, re.MULTILINE)
    assert ", ".join(heads).split(", ") == list(multicast.Capabilities.__slots__)


def test_it_is_false_where_the_feature_does_not_work(multicast):
    assert not multicast.Capability(name="gro", works=False, why="the reason")
    assert multicast.Capability(name="gro", works=True, why="")


@linux
@pytest.mark.parametrize("name", FIELDS)
def test_what_is_said_to_work_does_and_what_is_said_not_to_does_not(multicast, uses, name):
    capability = getattr(multicast.capabilities(), name)
    if capability:
        uses.use(name)  # with all that this raises where it fails
    assert uses.works(name) is capability.works


@linux
def test_batch_calls_are_for_the_native_backend(multicast):
    why = f"the stdlib backend makes one system call a datagram ({multicast.BACKEND_REASON})"
    expected = dict.fromkeys(BATCHES, why) if multicast.BACKEND == "stdlib" else {}
    found = missing(multicast)
    assert {name: why for name, why in found.items() if name in BATCHES} == expected
    copies = f"the stdlib backend copies each batch into bytes of its own ({multicast.BACKEND_REASON})"
    expected = dict.fromkeys(OWN_SLOTS, copies) if multicast.BACKEND == "stdlib" else {}
    assert {name: found.get(name) for name in expected} == expected
    assert multicast.BACKEND == "stdlib" or "memory" not in found


# What was denied, for what reason ----------------------------------------------------------------------------------

ABSENT, REFUSED, NO_CALL = "Protocol not available", "Operation not permitted", "Function not implemented"
SANDBOX = "; a sandbox denies it, as seccomp(2) can"
PRIVILEGE = "; this needs CAP_NET_ADMIN, outside of any user namespace"


def option(level: int, name: int, number: int = errno.EPERM, call: str = "setsockopt"):
    return call, {1: level, 2: name}, number


def a_socket(family: int, number: int = errno.EAFNOSUPPORT):
    return "socket", {0: family}, number


# Each: what is denied, which fields that takes with it, and the reason they give
ONE = {
    "IPv4": ([a_socket(socket.AF_INET)], ["ipv4", "isolation_ipv4"], "making a UDP socket over IPv4: Address family"),
    "IPv6": ([a_socket(socket.AF_INET6)], ["ipv6", "isolation_ipv6"], "making a UDP socket over IPv6: Address family"),
    "both": (
        [a_socket(socket.AF_INET), a_socket(socket.AF_INET6)],
        [*FAMILIES, *ON_UDP, *OTHERS],
        "Address family not supported by protocol; this kernel has none of that family, or a sandbox denies them",
    ),
    "bind": (
        [("bind", {2: size}, errno.EACCES) for size in (16, 28)],  # a struct sockaddr_in, sockaddr_in6
        [*FAMILIES, *ON_UDP, *OTHERS],
        f": Permission denied{SANDBOX}",
    ),
    "MCAST_JOIN_SOURCE_GROUP": (
        [option(IP, 46)],
        ["source_specific"],
        f"MCAST_JOIN_SOURCE_GROUP over IPv4: {REFUSED}{SANDBOX}",
    ),
    "MCAST_JOIN_SOURCE_GROUP-IPv6": (
        [option(IPV6, 46, errno.ENOBUFS)],
        ["source_specific"],
        "MCAST_JOIN_SOURCE_GROUP over IPv6: No buffer space available; a limit was reached: net.core.optmem_max (now ",
    ),
    "MCAST_MSFILTER": (
        [option(IP, 48, errno.ENOBUFS)],
        ["source_filters"],
        "MCAST_MSFILTER over IPv4: No buffer space available; a limit was reached: net.core.optmem_max (now ",
    ),
    "MCAST_MSFILTER-IPv6": (
        [option(IPV6, 48, errno.ENOPROTOOPT)],
        ["source_filters"],
        f"MCAST_MSFILTER over IPv6: {ABSENT}",
    ),
    "MCAST_JOIN_GROUP": (
        [option(IP, 42, errno.ENOBUFS)],
        ["ipv4", "isolation_ipv4"],
        "MCAST_JOIN_GROUP over IPv4: No buffer space available; a limit was reached: "
        "net.ipv4.igmp_max_memberships (now ",
    ),
    "IP_MULTICAST_ALL": (
        [option(IP, 49, errno.ENOPROTOOPT)],
        ["isolation_ipv4"],
        f"IP_MULTICAST_ALL: {ABSENT}",
    ),
    "IP_MULTICAST_ALL-refused": ([option(IP, 49)], ["isolation_ipv4"], f"IP_MULTICAST_ALL: {REFUSED}{SANDBOX}"),
    "IPV6_MULTICAST_ALL": ([option(IPV6, 29, errno.ENOPROTOOPT)], [], ""),  # the destination is looked at, too
    "IPV6_MULTICAST_ALL-refused": (
        [option(IPV6, 29)],
        ["isolation_ipv6"],
        f"IPV6_MULTICAST_ALL: {REFUSED}{SANDBOX}",
    ),
    "IP_PKTINFO": (
        [option(IP, 8)],
        ["isolation_ipv4", "destination", "interface"],
        f"IP_PKTINFO: {REFUSED}{SANDBOX}",
    ),
    "IPV6_RECVPKTINFO": (
        [option(IPV6, 49)],
        ["isolation_ipv6", "destination", "interface"],
        f"IPV6_RECVPKTINFO: {REFUSED}{SANDBOX}",
    ),
    "IP_RECVTTL": ([option(IP, 12)], ["ttl"], f"IP_RECVTTL: {REFUSED}{SANDBOX}"),
    "IPV6_RECVHOPLIMIT": ([option(IPV6, 51)], ["ttl"], f"IPV6_RECVHOPLIMIT: {REFUSED}{SANDBOX}"),
    "IP_RECVTOS": ([option(IP, 13)], ["tos"], f"IP_RECVTOS: {REFUSED}{SANDBOX}"),
    "IPV6_RECVTCLASS": ([option(IPV6, 66)], ["tos"], f"IPV6_RECVTCLASS: {REFUSED}{SANDBOX}"),
    "SO_RXQ_OVFL": ([option(SOCKET, 40, errno.ENOPROTOOPT)], ["drops"], f"SO_RXQ_OVFL: {ABSENT}"),
    "SO_TIMESTAMPNS": ([option(SOCKET, 35)], ["software_timestamps"], f"SO_TIMESTAMPNS: {REFUSED}{SANDBOX}"),
    "SO_TIMESTAMPING": ([option(SOCKET, 37)], ["hardware_timestamps"], f"SO_TIMESTAMPING: {REFUSED}{SANDBOX}"),
    "SO_MEMINFO": (
        [option(SOCKET, 55, errno.ENOPROTOOPT, "getsockopt")],
        ["kernel_drops"],
        f"SO_MEMINFO: {ABSENT}; Linux has it since 4.12, unless it was built without",
    ),
    "SO_RCVBUFFORCE": ([option(SOCKET, 33)], ["receive_buffer_force"], f"SO_RCVBUFFORCE: {REFUSED}{PRIVILEGE}"),
    "UDP_GRO": (
        [option(UDP, 104, errno.ENOPROTOOPT)],
        ["gro"],
        f"UDP_GRO: {ABSENT}; Linux has it since 5.0, unless it was built without",
    ),
    "UDP_SEGMENT": (
        [option(UDP, 103, errno.ENOPROTOOPT)],
        ["segmentation"],
        f"UDP_SEGMENT: {ABSENT}; Linux has it since 4.18, unless it was built without",
    ),
    "SO_ATTACH_FILTER": (
        [option(SOCKET, 26, errno.ENOMEM)],
        ["filter"],
        "SO_ATTACH_FILTER: Cannot allocate memory; a limit was reached: net.core.optmem_max (now ",
    ),
    "SO_BUSY_POLL": ([option(SOCKET, 46)], ["busy_poll"], f"SO_BUSY_POLL: {REFUSED}{PRIVILEGE}"),
    "SO_BUSY_POLL-built-without": (
        [option(SOCKET, 46, errno.ENOPROTOOPT)],
        ["busy_poll"],
        f"SO_BUSY_POLL: {ABSENT}; Linux has it since 3.11, unless it was built without",
    ),
    "IP_RECVERR": ([option(IP, 11)], ["error_queue"], f"IP_RECVERR: {REFUSED}{SANDBOX}"),
    "IPV6_RECVERR": ([option(IPV6, 25)], ["error_queue"], f"IPV6_RECVERR: {REFUSED}{SANDBOX}"),
    "MADV_HUGEPAGE": (
        [("madvise", {2: 14}, errno.EINVAL)],
        ["transparent_hugepages"],
        "hugepages='transparent': mapping 1 huge page of ",
    ),
    "MADV_HUGEPAGE-ignored": (
        [("madvise", {2: advice}, 0) for advice in (14, 23)],  # MADV_HUGEPAGE, MADV_POPULATE_WRITE
        ["transparent_hugepages"],
        "MADV_HUGEPAGE: the kernel gave no huge page; /sys/kernel/mm/transparent_hugepage/enabled is ",
    ),
    "MAP_HUGETLB": (
        [("mmap", {3: 0x40022}, errno.ENOMEM)],  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB
        ["reserved_hugepages"],
        "hugepages='reserved': mapping 1 huge page of ",
    ),
    "netlink": (
        [a_socket(socket.AF_NETLINK)] if sys.platform == "linux" else [],
        ["interfaces", *OTHERS],
        ": Address family not supported by protocol; ",
    ),
    "timerfd": (
        [("timerfd_create", {}, errno.ENOSYS)],
        ["silence_watchdog"],
        f"timerfd_create: {NO_CALL}{SANDBOX}",
    ),
}


@linux
@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("what", ONE)
def test_a_denial_takes_with_it_what_needs_it_and_nothing_else(multicast, uses, what):
    denials, fields, why = ONE[what]
    before = missing(multicast)
    if "ipv6" in before and ("IPv6" in what or "IPV6" in what):
        pytest.skip(f"there is nothing to deny: {before['ipv6']}")
    after = denied(lambda: missing(multicast), *denials)
    found = {name: text for name, text in after.items() if name not in before}
    assert set(found) == {*fields} - {*before}
    assert [text for text in found.values() if why not in text] == []
    assert missing(multicast) == before


@linux
@pytest.mark.parametrize("what", ONE)
def test_what_is_said_under_a_denial_is_so(multicast, uses, what):
    """The features themselves, under the same denial: what it took fails, and in the family that is left all works."""
    denials, fields, _ = ONE[what]
    if what in ("both", "bind"):  # then there is nothing to use them on
        fields = FAMILIES
    families = [] if "interfaces" in fields else FAMILIES  # which are used on an interface that has to be named
    after = denied(lambda: missing(multicast), *denials)
    if "ipv4" in after or "ipv6" in after:
        uses.families = [socket.AF_INET6 if "ipv4" in after else socket.AF_INET]
    for name in [*fields, *families]:
        assert denied(lambda name=name: uses.works(name), *denials) is (name not in after), name


@linux
@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_call_that_is_denied_is_named(native, name, number):
    before = missing(native)
    assert name not in before
    after = denied(lambda: missing(native), (name, {}, number))
    assert after == before | {name: f"{name}: {os.strerror(number)}{SANDBOX}"}


BATCH_DENIED = """
import errno, sys
import multicast
from seccomp import denied
from uses import LO, Uses

name, other = sys.argv[1:]

def both():
    assert not getattr(multicast.capabilities(), name)
    assert getattr(multicast.capabilities(), other)
    uses = Uses(multicast, ("239.255.0.1", 1), ipv6=False)
    assert not uses.works(name)
    assert uses.works(other)

denied(both, (name, {}, errno.EPERM))
print("as it is said")
"""


@linux
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_call_that_is_denied_is_not_made(native, name):
    """In a process of its own, since one that was denied it does without from then on."""
    (other,) = {*BATCHES} - {name}
    done = python(native, "-c", BATCH_DENIED, name, other)
    assert (done.stdout, done.stderr) == ("as it is said\n", "")


def python(package, *arguments, backend=None):
    """Run a fresh interpreter, which has the package, what the tests have, and all else that this one can import."""
    environment = python_environment(package, backend)
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(HERE), *sys.path])
    command = [sys.executable, "-P", "-W", "error", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * DEADLINE)


@linux
def test_a_pair_of_sockets_that_can_not_be_made_is_named(multicast):
    after = denied(lambda: missing(multicast), ("socketpair", {}, errno.EPERM))
    for name in ON_A_PAIR:
        assert after[name] == f"making a pair of AF_UNIX sockets to try it on: {REFUSED}{SANDBOX}"


# A system that takes an option which it does not know, as sandboxes that imitate a kernel do.
IGNORED = {
    "source_specific": (IP, 46, "MCAST_JOIN_SOURCE_GROUP over IPv4"),
    "source_filters": (IP, 48, "MCAST_MSFILTER over IPv4"),
    "isolation_ipv4": (IP, 49, "IP_MULTICAST_ALL"),
    "destination": (IP, 8, "IP_PKTINFO"),
    "ttl": (IP, 12, "IP_RECVTTL"),
    "tos": (IP, 13, "IP_RECVTOS"),
    "drops": (SOCKET, 40, "SO_RXQ_OVFL"),
    "software_timestamps": (SOCKET, 35, "SO_TIMESTAMPNS"),
    "hardware_timestamps": (SOCKET, 37, "SO_TIMESTAMPING"),
    "receive_buffer_force": (SOCKET, 33, "SO_RCVBUFFORCE"),
    "segmentation": (UDP, 103, "UDP_SEGMENT"),
    "filter": (SOCKET, 26, "SO_ATTACH_FILTER"),
    "busy_poll": (SOCKET, 46, "SO_BUSY_POLL"),
    "error_queue": (IP, 11, "IP_RECVERR"),
}


@linux
@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("name", IGNORED)
def test_an_option_that_is_taken_without_an_effect_does_not_work(multicast, name):
    level, number, called = IGNORED[name]
    after = denied(lambda: missing(multicast), option(level, number, 0))
    assert after[name] == f"{called}: this system takes it without an error, and without an effect"


@linux
def test_a_system_that_tells_no_real_length_is_found_out(multicast, monkeypatch):
    whole = socket.socket.recv_into
    monkeypatch.setattr(
        socket.socket, "recv_into", lambda sock, buffer, *rest: min(whole(sock, buffer, *rest), len(buffer))
    )
    assert missing(multicast)["real_lengths"].startswith("MSG_TRUNC as a flag to receive with: this system takes it ")


@linux
@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("family", ["AF_INET", "AF_NETLINK"])
def test_where_nothing_can_be_tried_it_fails_and_accuses_no_feature(multicast, family, number):
    with pytest.raises(OSError, match="capabilities: ") as caught:
        denied(multicast.capabilities, a_socket(getattr(socket, family), number))
    assert caught.value.errno == number


@linux
def test_without_timers_a_silence_can_not_be_told(multicast, monkeypatch):
    monkeypatch.delattr(os, "timerfd_create", raising=False)
    assert "silence_watchdog" not in missing(multicast)
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert missing(multicast)["silence_watchdog"] == "timerfd_create: this Python is older than 3.13, and has no ctypes"


# Other users and hosts ---------------------------------------------------------------------------------------------


@linux
def test_an_ordinary_user_may_not_pass_the_limit_of_receive_buffers(multicast):
    done = python(multicast, str(HERE / "agents" / "ordinary_user.py"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if "missing" not in said:
        unavailable(f"refused to an ordinary user: {said['unavailable']}")
    found = [said["missing"]]
    if "unavailable" not in said:
        found.append(said["missing as root"])
    for each in found:
        assert each["receive_buffer_force"] == f"SO_RCVBUFFORCE: {REFUSED}{PRIVILEGE}"
        assert {*each} <= {"receive_buffer_force", "busy_poll", *OWN_SLOTS, *BATCHES}


def of_the_host(found: dict[str, str]) -> set[str]:
    """What is missing there, but for what the backend or the machine lacks, and the root of a user namespace."""
    return {*found} - {*BATCHES, *OWN_SLOTS, "receive_buffer_force", "busy_poll"}


def in_host(host, package, *command):
    """Run a command in a host, and return the JSON that it prints."""
    environment = python_environment(package)
    done = subprocess.run(host.inside(*command), env=environment, capture_output=True, text=True, timeout=2 * DEADLINE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_sent_and_nothing_stays(rig, multicast):
    """Not even on the loopback interface, where the kernel reports the groups that are joined as on any other."""
    agent = str(HERE / "agents" / "trying.py")
    said = in_host(rig.island, multicast, sys.executable, "-P", "-W", "error", agent)
    assert said["came"] == []
    assert said["changed"] == {}
    assert not said["left open"]
    assert of_the_host(said["missing"]) == set()


@linux
def test_only_groups_that_no_host_reports_are_joined(multicast, monkeypatch):
    """The test above sees most reports of others; the kernel drops some of what is left again at once."""
    joined, join = set(), multicast.skt._backend.join_group

    def record(sock, group, index, source):
        joined.add((socket.inet_ntop(sock.family, group), index))
        return join(sock, group, index, source)

    monkeypatch.setattr(multicast.skt._backend, "join_group", record)
    families = 1 if "ipv6" in missing(multicast) else 2
    assert joined <= {("224.0.0.1", LO), ("ff02::1", LO)}  # RFC 3376, section 5; RFC 3810, section 6
    assert len(joined) == families


MISSING = """
import json
import multicast

print(json.dumps({each.name: each.why for each in multicast.capabilities() if not each}))
"""


def missing_in_a_new_host(rig, package, *setting_up: str) -> dict[str, str]:
    """What does not work in a network namespace of its own, whose loopback interface is down as it is made."""
    shell = ["unshare", "--net", "sh", "-c", " && ".join([*setting_up, 'exec "$@"']), "sh"]
    return in_host(rig.island, package, *shell, sys.executable, "-P", "-W", "error", "-c", MISSING)


def test_a_host_without_ipv6_is_told(rig, multicast):
    switch_off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
    found = missing_in_a_new_host(rig, multicast, "ip link set lo up", switch_off)
    assert of_the_host(found) == {"ipv6", "isolation_ipv6"}
    why = "no interface has an IPv6 address: Cannot assign requested address"
    assert found["ipv6"] == f"{why}; net.ipv6.conf.all.disable_ipv6 (now 1) forbids it"
    found = missing_in_a_new_host(rig, multicast)
    assert of_the_host(found) == {"ipv6", "isolation_ipv6"}
    assert found["ipv6"] == why


def test_ipv6_does_not_hang_on_the_loopback_interface(rig, multicast):
    link = ("ip link add feed0 type veth peer name feed1", "ip link set feed0 up", "ip link set feed1 up")
    found = missing_in_a_new_host(rig, multicast, *link, "ip address add 2001:db8::1/64 dev feed0 nodad")
    assert of_the_host(found) == set()


@linux
def test_no_code_of_the_kernel_is_switched_for_the_whole_host(multicast, monkeypatch):
    """For a UDP socket that wants time stamps (net_enable_timestamp) or trains (udp_tunnel_encap_enable) some is."""
    calls = []

    def record(sock, level, name, *value):
        calls.append((sock.family, level, name, value))
        return plain(sock, level, name, *value)

    plain = socket.socket.setsockopt
    monkeypatch.setattr(socket.socket, "setsockopt", record)
    multicast.capabilities()
    switches = {(SOCKET, 35): [], (SOCKET, 37): [], (UDP, 104): []}
    for family, level, name, value in calls:
        switches.get((level, name), []).append((family, value != (0,)))
    assert switches[SOCKET, 35] == switches[SOCKET, 37] == [(socket.AF_UNIX, True)]
    assert {switched for _, switched in switches[UDP, 104]} == {False}


@linux
@pytest.mark.usefixtures("no_leaked_descriptors")
def test_each_call_tries_anew(multicast):
    """The answer is of the calling thread, now."""
    before = missing(multicast)
    refusal = option(SOCKET, 40)

    def within():
        first = missing(multicast)
        return first, denied(lambda: missing(multicast), option(SOCKET, 46))

    first, second = denied(within, refusal)
    assert {*first} == {*before, "drops"}
    assert {*second} == {*before, "drops", "busy_poll"}  # a thread's filters are those of the threads that it starts
    assert missing(multicast) == before


# Other systems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["darwin", "freebsd14", "win32"])
def test_what_a_system_does_not_have_is_named(multicast, monkeypatch, system):
    """Simulated: this module is told that it runs on another system."""
    monkeypatch.setitem(multicast._capabilities.find.__globals__, "sys", SimpleNamespace(platform=system))
    found = missing(multicast)
    assert {*found} == {*FIELDS} - {*EVERYWHERE} - ({*BATCHES, "memory"} if multicast.BACKEND == "native" else set())
    for name, why in found.items():
        if name not in (*BATCHES, "memory"):  # which are the backend's
            assert re.fullmatch(rf"this system has no .*[A-Za-z_]+: that is of Linux, this is {system}", why), why


ELSEWHERE = """
import sys
sys.platform = {system!r}
import multicast

for each in multicast.capabilities():
    print(each.name, each.works, each.why, sep="|")
"""


@pytest.mark.parametrize("system", ["darwin", "freebsd14"])
def test_on_another_system_all_of_it_can_be_tried(multicast, system):
    """Simulated in the whole package: with that system's numbers, which this kernel takes for something else."""
    done = python(multicast, "-c", ELSEWHERE.format(system=system), backend="stdlib")
    assert done.returncode == 0, done.stderr
    said = {name: (works, why) for name, works, why in (line.split("|") for line in done.stdout.splitlines())}
    assert list(said) == list(multicast.Capabilities.__slots__)
    assert said["interfaces"] == ("True", "")
    if sys.platform == "linux":
        assert said["ipv4"] == ("False", f"MCAST_JOIN_GROUP over IPv4: {ABSENT}")
    assert said["gro"] == ("False", f"this system has no UDP_GRO: that is of Linux, this is {system}")


# The report for bugs -----------------------------------------------------------------------------------------------


def test_the_report_for_bugs_has_a_line_for_each(multicast):
    done = python(multicast, "-m", "multicast")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-len(FIELDS) :]
    assert [line.split(maxsplit=2)[:2] for line in lines] == [
        [each.name, "yes" if each else "no"] for each in multicast.capabilities()
    ]
    assert [line.split(maxsplit=2)[2:] for line in lines] == [
        [each.why] if each.why else [] for each in multicast.capabilities()
    ]


REPORT = """
import errno
from multicast.__main__ import main
from seccomp import denied

denied(lambda: main([]), ("socket", {}, errno.EMFILE))
"""


@linux
def test_the_report_for_bugs_comes_also_where_nothing_can_be_tried(multicast):
    done = python(multicast, "-c", REPORT)
    assert done.returncode == 0, done.stderr
    *head, last = done.stdout.splitlines()
    assert head[1] == f"backend       {multicast.BACKEND}: {multicast.BACKEND_REASON}"
    assert last.startswith(
        "what works here could not be tried: [Errno 24] capabilities: making a UDP socket over IPv4: "
    )
