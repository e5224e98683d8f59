"""The rig of tests/rig.py itself: it works for every user, leaves nothing, and says why where it can't be made."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rig import DEADLINE, Host, Rig, Unavailable, unavailable

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

HERE = Path(__file__).parent


def environment(package) -> dict[str, str]:
    """Variables for a Python that imports the package under test, and all else that this one can."""
    where = [str(Path(package.__file__).parent.parent), str(HERE), *sys.path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(where), "MULTICAST_BACKEND": package.BACKEND}


def namespaces_in_use() -> set[str]:
    """The network namespaces that some process is in, as far as this user may see."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(process / "ns" / "net"))
    return found


def namespace(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


@pytest.fixture
def watched():
    """Tell a process's namespace, and keep its name from being given to another one."""
    with contextlib.ExitStack() as closing:

        def watch(pid: int) -> str:
            closing.enter_context(open(f"/proc/{pid}/ns/net", "rb"))
            return namespace(pid)

        yield watch


def fake(directory: Path, tool: str, says: str) -> None:
    """Put a tool there that says this and fails."""
    path = directory / tool
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    path.chmod(0o755)


# What it is --------------------------------------------------------------------------------------------------------


def test_each_host_is_a_namespace_of_its_own(rig):
    hosts = [namespace(host.holder.pid) for host in (rig.tx, rig.rx, rig.island)]
    assert len({namespace("self"), *hosts}) == 4
    assert namespaces_in_use().issuperset(hosts)


def test_an_ordinary_user_can_have_it(multicast):
    script = [sys.executable, "-P", str(HERE / "agents" / "ordinary_user.py")]
    done = subprocess.run(script, env=environment(multicast), capture_output=True, text=True, timeout=2 * DEADLINE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if "unavailable" in said:
        assert re.match("unshare --user --map-root-user --net: unshare: .|becoming nobody: .", said["unavailable"])
        unavailable(f"refused to an ordinary user: {said['unavailable']}")
    assert said["uid"] != 0
    assert said["came"] == ["from host to host"]


# What is left of it ------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_it_when_it_is_closed(rig, watched):  # rig: which skips where none can be made
    with Rig() as another:
        hosts = {watched(host.holder.pid) for host in (another.tx, another.rx, another.island)}
        assert hosts <= namespaces_in_use()
    assert hosts.isdisjoint(namespaces_in_use())


def test_nothing_is_left_of_it_when_its_process_is_killed(rig, multicast, watched):
    code = """if True:
        import sys
        import multicast
        from rig import Agent, Rig
        rig = Rig()
        agent = Agent(rig.rx, multicast)
        print(rig.tx.holder.pid, rig.rx.holder.pid, rig.island.holder.pid, agent.pid, flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        env=environment(multicast),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with contextlib.ExitStack() as closing:
        closing.enter_context(process)
        closing.callback(process.kill)
        assert select.select([process.stdout], [], [], DEADLINE)[0]
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 4
        hosts = {watched(pid) for pid in pids}
        ends = []  # descriptors that are readable once their process has ended (pidfd_open(2))
        for pid in pids:
            ends.append(os.pidfd_open(pid))
            closing.callback(os.close, ends[-1])
        assert select.select(ends, [], [], 0)[0] == []
        process.send_signal(signal.SIGKILL)
        for end in ends:
            assert select.select([end], [], [], DEADLINE)[0] == [end]
    assert hosts.isdisjoint(namespaces_in_use())


# Where it can't be made --------------------------------------------------------------------------------------------


def test_missing_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as refused:
        Rig()
    assert str(refused.value) == (
        "not found in PATH: ip (iproute2), unshare (util-linux), nsenter (util-linux), sh (a shell), cat (coreutils)"
    )


def test_a_refused_namespace_is_told_as_the_kernel_put_it(monkeypatch, tmp_path):
    says = "unshare: unshare failed: Operation not permitted"
    fake(tmp_path, "unshare", says)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(Unavailable) as refused:
        Rig()
    ways = ["unshare --net"] if os.geteuid() == 0 else []
    ways.append("unshare --user --map-root-user --net")
    assert str(refused.value) == "; ".join(f"{way}: {says}" for way in ways)


def test_a_refused_link_is_told_and_leaves_no_host(rig, monkeypatch, tmp_path):
    fake(tmp_path, "ip", "Error: Unknown device type.")
    closed = []
    close = Host.close
    monkeypatch.setattr(Host, "close", lambda host: (close(host), closed.append(host)))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(Unavailable, match=r"^tx: ip -batch - .*link add feed0.*: Error: Unknown device type\.$"):
        Rig()
    assert sorted(host.name for host in closed) == ["island", "rx", "tx"]
    assert all(host.holder.returncode is not None for host in closed)


@pytest.mark.parametrize(
    ("ci", "status", "outcome"), [("", 0, "skipped"), ("true", 1, "error")], ids=["at a desk", "in CI"]
)
def test_a_missing_rig_is_never_silent(tmp_path, ci, status, outcome):
    test = f"{HERE / 'test_namespaces.py'}::test_the_limit_of_memberships_is_named_and_costs_no_group"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", test],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "no hosts in network namespaces: not found in PATH: ip (iproute2)" in done.stdout
    assert outcome in done.stdout.splitlines()[-1]
