"""Both backends through one fixture, and the guard against testing something else.

Owns how the package is loaded for tests: `multicast` is it once with each backend that MULTICAST_BACKEND allows
(unset: both). A backend that should be there and is not ends the run; nothing is skipped for it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import ModuleType

import feeds
import hypothesis
import hypothesis.strategies
import pytest
from net import open_descriptors

ASKED = os.environ.get("MULTICAST_BACKEND") or "auto"
BACKENDS = ("native", "stdlib") if ASKED == "auto" else (ASKED,)
if sys.platform != "linux":
    BACKENDS = ("stdlib",)


LATE = ("_async", "_capabilities")  # what the package imports when it is needed


# No example is too slow: how long one takes says how busy the machine is. The rest is as hypothesis has it, which looks
# whether CI is set.
hypothesis.settings.register_profile("unhurried", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("unhurried")


def load(backend: str) -> ModuleType:
    """Import the package anew with a backend, and leave sys.modules as it was."""
    saved = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "multicast"}
    before = os.environ.get("MULTICAST_BACKEND")
    os.environ["MULTICAST_BACKEND"] = backend
    try:
        package = importlib.import_module("multicast")
        for name in LATE:  # later their names would be another copy's
            importlib.import_module(f"multicast.{name}")
        return package
    finally:
        if before is None:
            del os.environ["MULTICAST_BACKEND"]
        else:
            os.environ["MULTICAST_BACKEND"] = before
        for name in [name for name in sys.modules if name.partition(".")[0] == "multicast"]:
            del sys.modules[name]
        sys.modules.update(saved)


PACKAGES: dict[str, ModuleType] = {}
LIBRARY = os.environ.get("MULTICAST_TEST_LIBRARY")  # set: the package has to come from this folder and no other


def pytest_configure() -> None:
    """Import what is to be tested; if it is not there, end the run before a test passes on something else."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of a job in the background: Ctrl-C is tested, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for backend in BACKENDS:
        try:
            PACKAGES[backend] = load(backend)
        except ImportError as error:
            pytest.exit(f"a backend to be tested can't be imported: {error}", returncode=3)
        file = PACKAGES[backend].skt._backend.__file__
        if LIBRARY and not file.startswith(LIBRARY + os.sep):
            pytest.exit(f"{file} was imported, not one in {LIBRARY}", returncode=3)
    try:
        feeds.share()  # now: a test that counts descriptors is not to be the first to ask
    except feeds.NoneLeft as error:
        pytest.exit(str(error), returncode=3)


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at thousands of tests: that takes a third of a second, and many ask for one."""
    used_hypothesis()  # which asks at its first use who refers to an object: whatever is frozen is not found
    gc.collect()
    gc.freeze()


@hypothesis.settings(max_examples=1, database=None)
@hypothesis.given(hypothesis.strategies.none())
def used_hypothesis(_: None) -> None:
    """Pass."""


def pytest_report_header() -> list[str]:
    lines = [f"multicast {PACKAGES[BACKENDS[0]].__version__}, MULTICAST_BACKEND={ASKED}"]
    for backend, package in PACKAGES.items():
        lines.append(f"backend {backend}: {package.skt._backend.__file__} (door: {package.skt.__file__})")
    return lines


@pytest.fixture
def tell(record_property) -> Callable[[str], None]:
    """Have something told at the end of the run that is not judged: what a test prints, only its failure shows."""
    return lambda text: record_property("told", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "told":
                terminalreporter.write_line(text)


@pytest.fixture(params=BACKENDS, scope="session")
def multicast(request: pytest.FixtureRequest) -> ModuleType:
    """The package, with one backend and then with the other."""
    return PACKAGES[request.param]


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """The package with the native backend, for what is promised of that alone."""
    if "native" not in PACKAGES:
        pytest.skip(f"MULTICAST_BACKEND={ASKED}: the native backend is not under test")
    return PACKAGES["native"]


@pytest.fixture(scope="session")
def both() -> tuple[ModuleType, ModuleType]:
    """The package with the native backend, and with its twin."""
    if len(PACKAGES) < 2:
        pytest.skip(f"only the {next(iter(PACKAGES))} backend is under test")
    return PACKAGES["native"], PACKAGES["stdlib"]


@pytest.fixture(params=["to twin", "to native"])
def each_way(request: pytest.FixtureRequest, both: tuple[ModuleType, ModuleType]) -> tuple[ModuleType, ModuleType]:
    """Both, one way round and then the other."""
    return both if request.param == "to twin" else both[::-1]


@pytest.fixture
def feed() -> tuple[str, int]:
    """A group and a port that no other test of this run uses, nor one of another run."""
    return feeds.new_feed()


class Opened:
    """Opens receivers and senders on the loopback interface, TTL 0, and closes them after the test."""

    def __init__(self, package: ModuleType) -> None:
        self.package = package
        self.things: list[object] = []

    def receiver(self, feed: tuple[str, int], **options):
        options.setdefault("timeout", 10)
        return self.closing(self.package.open_receiver(*feed, interface="lo", **options))

    def sender(self, feed: tuple[str, int]):
        return self.closing(self.package.open_sender(*feed, interface="lo", ttl=0))

    def pair(self, feed: tuple[str, int], **options):
        return self.receiver(feed, **options), self.sender(feed)

    def pipe(self, **options):
        """A receiver and the socket that feeds it, without a network: a pair of AF_UNIX datagram sockets."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.closing(far)
        self.closing(near)
        options.setdefault("timeout", 10)
        return self.closing(self.package.Receiver(near, **options)), far

    def closing(self, thing):
        self.things.append(thing)
        return thing

    def close(self) -> None:
        while self.things:
            self.things.pop().close()


@pytest.fixture
def opened(multicast: ModuleType):
    """Open things with the backend under test; they are closed afterwards."""
    things = Opened(multicast)
    yield things
    things.close()


@pytest.fixture
def opened_native(native: ModuleType):
    """Open things with the native backend; they are closed afterwards."""
    things = Opened(native)
    yield things
    things.close()


@pytest.fixture
def no_leaked_descriptors():
    """Fail if the test leaves a descriptor open."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
