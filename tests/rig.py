"""Several hosts on this one: network namespaces joined by veth pairs, and agents that use the package inside them.

Owns how hosts are made (as root, or by an ordinary user in a user namespace), that nothing of them is left, and the
reason when they can't be made. Must not touch an interface, an address or a sysctl of this machine's own namespace.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import feeds
import pytest

DEADLINE = 20  # seconds: more than anything here takes, on a busy machine, too
AGENTS = Path(__file__).parent / "agents"
AGENT = AGENTS / "host.py"

REPORT_INTERVALS = [
    "/proc/sys/net/ipv4/conf/{}/igmpv2_unsolicited_report_interval",
    "/proc/sys/net/ipv4/conf/{}/igmpv3_unsolicited_report_interval",
    "/proc/sys/net/ipv6/conf/{}/mldv1_unsolicited_report_interval",
    "/proc/sys/net/ipv6/conf/{}/mldv2_unsolicited_report_interval",
]

# The links, by name: index and addresses in each host. Addresses are those set aside for documentation (RFC 5737,
# RFC 3849), tx has several to choose sources from. The link-local ones are the same on both links, as they may be.
_SOURCES4 = ["192.0.2.11/24", "192.0.2.12/24", "192.0.2.13/24"]
_SOURCES6 = ["2001:db8::11/64", "2001:db8::12/64", "2001:db8::13/64"]
LINKS = {
    "feed0": {
        "rx": (10, ["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"]),
        "tx": (20, [*_SOURCES4, *_SOURCES6, "fe80::11/64"]),
    },
    "feed1": {
        "rx": (11, ["198.51.100.1/24", "2001:db8:0:1::1/64", "fe80::1/64"]),
        "tx": (21, ["198.51.100.11/24", "2001:db8:0:1::11/64", "fe80::11/64"]),
    },
}


class Unavailable(Exception):
    """The rig can't be made here; the text says why."""


def unavailable(why: object) -> NoReturn:
    """Skip the test for this reason; where CI is set, where a skip goes unseen, fail it."""
    reason = f"no hosts in network namespaces: {why}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (a failure, since CI is set)", pytrace=False)
    pytest.skip(reason)


class Host:
    """A network namespace, held by a process that ends when this one does: it reads a pipe of ours until that closes.

    - how: the command that runs another in a new namespace
    """

    def __init__(self, name: str, how: list[str]) -> None:
        self.name = name
        self._user = "--user" in how
        # The shell is there when the namespace is: its line is the sign that everything before it went well.
        self.holder = subprocess.Popen(
            [*how, "sh", "-c", "echo here && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if _line(self.holder) != "here\n":
                _, said = self.holder.communicate(timeout=DEADLINE)
                raise Unavailable(f"{' '.join(how)}: {said.strip() or f'exit status {self.holder.returncode}'}")
        except BaseException:
            self.close()
            raise

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs this one in the host, as its root."""
        user = ["--user", "--preserve-credentials"] if self._user else []
        return ["nsenter", "--target", str(self.holder.pid), *user, "--net", "--", *command]

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command in the host and return what it printed."""
        done = subprocess.run(self.inside(*command), input=stdin, capture_output=True, text=True, timeout=DEADLINE)
        if done.returncode:
            asked = " ".join(command) + (f" <<< {stdin.strip()!r}" if stdin else "")
            raise RuntimeError(f"{self.name}: {asked}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Have ip(8) do each of these."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def read(self, path: str) -> str:
        """Return the text of a file; what is below /proc/net and /proc/sys/net is the host's."""
        return self.run("cat", path)

    def write(self, path: str, text: str) -> None:
        """Write a file, as `read` reads it."""
        self.run("sh", "-c", 'cat > "$0"', path, stdin=text)

    def wait_until_up(self, link: str) -> None:
        """Wait for the kernel to find that the link is there, which it does a moment after both ends are up.

        ip(8) can report that as it happens, but not say from when on it would: so ask until it is so.
        """
        deadline = time.monotonic() + DEADLINE
        while (state := json.loads(self.run("ip", "-json", "link", "show", "dev", link))[0]["operstate"]) != "UP":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {link} is still {state} after {DEADLINE} s")

    def repeat_reports_soon(self, *links: str) -> None:
        """Have membership reports on these links repeated within 10 ms, not 1 or 10 s (RFC 3376, 8.11; RFC 3810, 9.11).

        Then what a test caused has been told when the next begins. And so has what the first link-local address of a
        link causes: for as long, all that is joined there may be reported over again (mld_send_initial_cr of
        net/ipv6/mcast.c).
        """
        paths = [path.format(link) for link in links for path in REPORT_INTERVALS]
        self.run("sh", "-c", 'for path; do echo 10 > "$path" || exit; done', "sh", *paths)

    def close(self) -> None:
        """End the holder; the kernel takes the namespace down with the last process in it."""
        self.holder.kill()
        with self.holder:  # closes the pipes and waits
            pass


@contextlib.contextmanager
def joined_hosts() -> Iterator[Rig]:
    """Give hosts of one's own; where they can't be made, skip and say why, or fail where CI is set."""
    try:
        made = Rig()
    except Unavailable as error:
        unavailable(error)
    with made:
        yield made


class Rig:
    """Two hosts, `tx` and `rx`, joined by the links `feed0` and `feed1`, and one, `island`, with no link at all."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:
            self.tx, self.rx, self.island = self._hosts(undo)
            try:
                self._join()
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                raise Unavailable(str(error)) from error
            self._undo = undo.pop_all()

    def _hosts(self, undo: contextlib.ExitStack) -> list[Host]:
        packages = {
            "ip": "iproute2",
            "unshare": "util-linux",
            "nsenter": "util-linux",
            "sh": "a shell",
            "cat": "coreutils",
        }
        missing = [f"{tool} ({package})" for tool, package in packages.items() if shutil.which(tool) is None]
        if missing:
            raise Unavailable(f"not found in PATH: {', '.join(missing)}")

        def host(name: str, how: list[str]) -> Host:
            made = Host(name, how)
            undo.callback(made.close)
            return made

        refused = []
        # Root can do it directly, unless a container took that away; anybody else is root in a user namespace.
        if os.geteuid() == 0:
            try:
                return [host(name, ["unshare", "--net"]) for name in ("tx", "rx", "island")]
            except Unavailable as error:
                refused.append(str(error))
        try:
            first = host("tx", ["unshare", "--user", "--map-root-user", "--net"])
        except Unavailable as error:
            raise Unavailable("; ".join([*refused, str(error)])) from error
        beside = ["nsenter", "--target", str(first.holder.pid), "--user", "--preserve-credentials", "unshare", "--net"]
        return [first, host("rx", beside), host("island", beside)]

    def _join(self) -> None:
        for link, ends in LINKS.items():
            (tx_index, _), (rx_index, _) = ends["tx"], ends["rx"]
            self.tx.ip(
                f"link add {link} index {tx_index} type veth "
                f"peer name {link} index {rx_index} netns {self.rx.holder.pid}"
            )
        for host in (self.tx, self.rx, self.island):
            links = LINKS if host is not self.island else {}
            # No address made from the MAC: it would be checked for a duplicate first (RFC 4862), and that takes time.
            host.ip("link set lo up", *(f"link set {link} addrgenmode none up" for link in links))
        for host in (self.tx, self.rx):
            for link in LINKS:
                host.wait_until_up(link)
            host.repeat_reports_soon(*LINKS)
            host.ip(
                *(
                    f"address add {address} dev {link}{' nodad' if ':' in address else ''}"
                    for link, ends in LINKS.items()
                    for address in ends[host.name][1]
                )
            )

    def close(self) -> None:
        self._undo.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Agents ------------------------------------------------------------------------------------------------------------


class AgentError(Exception):
    """What a call of the package raised in an agent: the exception's class by name, its errno and its text."""

    def __init__(self, kind: str, errno: int | None, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.errno, self.text = kind, errno, text


class Worker:
    """A Python process in a host that does as it is told: a command is a line of JSON, and so is its answer.

    - script: one of tests/agents, which serves commands; arguments and environment are what it gets beside
    - said: what it answered before any command, the sign that it is ready
    """

    def __init__(self, host: Host, script: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._host = host
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the agent
        environment = {"MULTICAST_TEST_SHARE": str(feeds.share())} | (environment or {})
        where = [str(AGENTS), *filter(None, [environment.get("PYTHONPATH", os.environ.get("PYTHONPATH"))])]
        self._process = subprocess.Popen(
            host.inside(sys.executable, "-P", "-W", "error", str(script), *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(where)},
        )
        try:
            self.said = self._answer("start")
        except BaseException:
            self._end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, do: str, **arguments: object) -> object:
        """Have the agent do something; return its answer, or raise AgentError with the error it met."""
        self.ask(do, **arguments)
        return self._answer(do)

    def ask(self, do: str, **arguments: object) -> None:
        """Have the agent do something; its answer is to be fetched by `answer`."""
        self._tell(do, json.dumps({"do": do, **arguments}))

    def begin(self, do: str, **arguments: object) -> Callable[[], object]:
        """Have the agent do something meanwhile; return what waits for its answer, to be called before the next."""
        self.ask(do, **arguments)
        return functools.partial(self._answer, do)

    def enough(self, do: str) -> None:
        """Tell what was begun, and goes on until then, that it can end."""
        self._tell(do, "enough")

    def _tell(self, do: str, line: str) -> None:
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed(do, "it has ended") from None

    def answered(self, seconds: float) -> bool:
        """Whether the answer is there, or comes within so many seconds."""
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def answer(self) -> object:
        """Return the answer to what was asked, or raise AgentError with the error it met."""
        return self._answer("what it was asked to")

    def _answer(self, do: str) -> object:
        try:
            line = _line(self._process)
        except TimeoutError as error:
            raise self._failed(do, str(error)) from None
        if not line:
            raise self._failed(do, f"it ended, exit status {self._process.wait(DEADLINE)}")
        answer = json.loads(line)
        if "error" in answer:
            raise AgentError(*answer["error"])
        return answer["ok"]

    def _failed(self, do: str, how: str) -> AssertionError:
        return AssertionError(f"the agent in {self._host.name}, told to {do}: {how}; its stderr:\n{self._stderr()}")

    def _stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        """End the agent; fail if it did not end well."""
        try:
            self._process.stdin.close()
            self._process.wait(DEADLINE)
            said = self._stderr()
        finally:
            self._end()
        assert (self._process.returncode, said) == (0, ""), f"an agent in {self._host.name} failed:\n{said}"

    def _end(self) -> None:
        self._process.kill()
        with contextlib.suppress(ValueError, BrokenPipeError):  # stdin is closed already, or nobody reads it
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()


class Agent(Worker):
    """A process in a host with the package that is under test: receives and sends as it is told.

    - script: what it runs, which says which package it imported, as agents/host.py does
    - more: names of scripts beside its own whose commands it knows, too
    """

    def __init__(self, host: Host, package: ModuleType, *more: str, script: Path = AGENT) -> None:
        self._receivers = 0
        # The very package that pytest has, whether that is the checkout's or an installed one.
        where = str(Path(package.__file__).parent.parent)
        environment = {"PYTHONPATH": where, "MULTICAST_BACKEND": package.BACKEND}
        super().__init__(host, script, *more, environment=environment)
        try:
            assert self.said == [package.BACKEND, package.__file__], f"the agent imported {self.said}"
        except BaseException:
            self._end()
            raise

    def receiver(self, group: str | list[str], port: int, **options: object) -> RemoteReceiver:
        """Open a receiver: `open_receiver` with these arguments. {"Interface": name} is that `Interface`."""
        return self._opened("open", group=group, port=port, options=options)

    def plain(self, address: str, port: int, receive_buffer: int | None = None) -> RemoteReceiver:
        """Open a receiver on a socket of the standard library that is bound, shared, and left as it is otherwise."""
        return self._opened("plain", address=address, port=port, receive_buffer=receive_buffer)

    def _opened(self, do: str, **arguments: object) -> RemoteReceiver:
        self._receivers += 1
        self.call(do, name=self._receivers, **arguments)
        return RemoteReceiver(self, self._receivers)

    def send(self, port: int, *datagrams: tuple[str, str, str]) -> None:
        """Send datagrams in this order: from which own address, to which group or host, and the payload."""
        self.call("send", port=port, datagrams=datagrams)

    def option(self, port: int, source: str, to: str, level: int, option: int, value: int) -> None:
        """Set an option of the socket that sends from this own address to this group or host."""
        self.call("option", source=source, to=to, port=port, level=level, option=option, value=value)


class RemoteReceiver:
    """A receiver that an agent has opened."""

    def __init__(self, agent: Agent, name: int) -> None:
        self.agent, self._name = agent, name

    def begin(self, do: str, **arguments: object) -> Callable[[], object]:
        """As `Agent.begin`, of something that is done with this receiver."""
        return self.agent.begin(do, name=self._name, **arguments)

    def call(self, do: str, **arguments: object) -> object:
        """As `Agent.call`, of something that is done with this receiver."""
        return self.begin(do, **arguments)()

    def until(self, last: str) -> list[str]:
        """Receive until this payload comes; return all that came, in order."""
        return self.agent.call("until", name=self._name, last=last, seconds=DEADLINE / 2)

    def told(self, count: int) -> list[dict[str, object]]:
        """Receive so many datagrams; return what all columns tell of each."""
        return self.agent.call("told", name=self._name, count=count, seconds=DEADLINE / 2)

    def join(self, group: str, **options: object) -> None:
        self.agent.call("join", name=self._name, group=group, options=options)

    def leave(self, group: str, **options: object) -> None:
        self.agent.call("leave", name=self._name, group=group, options=options)

    def verb(self, verb: str, *arguments: object, **options: object) -> object:
        """Call a verb of the package on the receiver's socket."""
        return self.agent.call("verb", name=self._name, verb=verb, arguments=arguments, options=options)

    def method(self, method: str, *arguments: object, **options: object) -> object:
        """Call a method of the receiver."""
        return self.agent.call("method", name=self._name, method=method, arguments=arguments, options=options)

    def tracked(self, method: str, *arguments: object, **options: object) -> object:
        """Call a method of memberships of the receiver's socket that are not the receiver's own."""
        return self.agent.call("tracked", name=self._name, method=method, arguments=arguments, options=options)

    def memberships(self) -> list[dict[str, object]]:
        return self.agent.call("memberships", name=self._name)

    def stats(self) -> dict[str, int]:
        return self.agent.call("stats", name=self._name)

    def close(self) -> None:
        self.agent.call("close", name=self._name)


def _line(process: subprocess.Popen) -> str:
    """Return the next line that a process prints; empty if it ended."""
    if not select.select([process.stdout], [], [], DEADLINE)[0]:
        raise TimeoutError(f"{' '.join(process.args)}: no answer within {DEADLINE} s")
    return process.stdout.readline()
