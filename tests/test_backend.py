"""Which backend is chosen, what is said about it, and what importing the package costs.

Every test is of a fresh interpreter, most of them with a copy of the package in which something is missing or broken.
"""

from __future__ import annotations

import compileall
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
REPORT = "import multicast, json; print(json.dumps([multicast.BACKEND, multicast.BACKEND_REASON]))"
OPEN_TWO = """
import socket, sys, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import multicast
    assert said == [], said
    for _ in range(2):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with far, multicast.Receiver(near):
            pass
for each in said:
    print(each.category.__name__, each.filename, each.message)
"""


@dataclasses.dataclass
class Copy:
    """A copy of the package, in a directory of its own, and interpreters that import it."""

    directory: pathlib.Path

    @property
    def package(self) -> pathlib.Path:
        return self.directory / "multicast"

    @property
    def extension(self) -> pathlib.Path:
        return self.package / f"_skt{SUFFIX}"

    def run(self, code: str, backend: str | None = None, *options: str) -> subprocess.CompletedProcess[str]:
        """Run code in a fresh interpreter that has this copy and the standard library (-S), whatever is installed."""
        environment = {name: value for name, value in os.environ.items() if name != "MULTICAST_BACKEND"}
        environment |= {"PYTHONPATH": str(self.directory), "PYTHONFAULTHANDLER": ""}
        if backend is not None:
            environment["MULTICAST_BACKEND"] = backend
        command = [sys.executable, "-P", "-S", "-s", *options, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def choice(self, backend: str | None = None) -> tuple[str, str]:
        """Import it with warnings as errors: BACKEND and BACKEND_REASON."""
        done = self.run(REPORT, backend, "-W", "error")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        chosen, reason = json.loads(done.stdout)
        return chosen, reason

    def import_error(self, backend: str | None = None) -> str:
        """Import it, which has to fail by an ImportError: what that says."""
        done = self.run(REPORT, backend)
        assert (done.returncode, done.stdout) == (1, ""), done
        kind, _, text = done.stderr.splitlines()[-1].partition(": ")
        assert kind == "ImportError", done.stderr
        return text


@pytest.fixture
def plain(tmp_path, package) -> Copy:
    """A copy without the extension."""
    ignored = shutil.ignore_patterns("*.so", "*.c", "*.pyx", "*.pxi", "*.pxd", "*.h", "__pycache__")
    shutil.copytree(package, tmp_path / "multicast", ignore=ignored)
    return Copy(tmp_path)


@pytest.fixture(scope="session")
def package(pytestconfig) -> pathlib.Path:
    """The folder of the package that is tested."""
    packages = next(each.PACKAGES for each in pytestconfig.pluginmanager.get_plugins() if hasattr(each, "PACKAGES"))
    return pathlib.Path(next(iter(packages.values())).__file__).parent


@pytest.fixture
def full(plain, native) -> Copy:
    """A copy with the extension."""
    shutil.copyfile(native.skt._backend.__file__, plain.extension)
    return plain


# Choosing ----------------------------------------------------------------------------------------------------------

UNKNOWN = ["0", "1", "Native", "NATIVE", "pure", "python", "native ", " ", "auto,stdlib", "none", "native\n"]


@pytest.mark.parametrize("word", [None, "", "auto"])
def test_auto_takes_the_extension_where_there_is_one(full, word):
    assert full.choice(word) == ("native", "MULTICAST_BACKEND=auto, and the extension is there")


def test_native_takes_the_extension(full):
    assert full.choice("native") == ("native", "MULTICAST_BACKEND=native, and the extension is there")


def test_stdlib_leaves_the_extension_alone(full):
    assert full.choice("stdlib") == ("stdlib", "MULTICAST_BACKEND=stdlib")
    full.extension.write_bytes(b"")
    assert full.choice("stdlib") == ("stdlib", "MULTICAST_BACKEND=stdlib")


def test_the_backend_in_force_is_the_one_whose_classes_are_used(full):
    code = "import multicast; print(*(getattr(multicast, name).__module__ for name in ('Receiver', 'Sender', 'Batch')))"
    assert full.run(code, "native").stdout == "multicast._skt multicast._skt multicast._skt\n"
    assert full.run(code, "stdlib").stdout == "multicast._skt_py multicast._sender_py multicast._batch_py\n"


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_word_is_an_import_error_that_names_the_words(plain, word):
    done = plain.run("import multicast", word)
    assert done.returncode == 1
    assert f"ImportError: MULTICAST_BACKEND={word!r}: use auto, native or stdlib" in done.stderr


# Without the extension ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [None, "", "auto"])
def test_auto_without_the_extension_falls_back_and_keeps_the_reason(plain, word):
    chosen, reason = plain.choice(word)
    assert chosen == "stdlib"
    assert reason.startswith("no extension multicast._skt for ")
    assert sys.implementation.cache_tag in reason
    assert reason.endswith("it was not built when the package was installed")


def test_native_without_the_extension_is_an_import_error_that_says_why(plain):
    _, reason = plain.choice("auto")
    assert plain.import_error("native") == f"MULTICAST_BACKEND=native: {reason}"


def test_an_extension_of_another_python_is_the_reason(plain):
    other = "_skt.cpython-39-x86_64-linux-gnu.so"
    (plain.package / other).write_bytes(b"")
    chosen, reason = plain.choice("auto")
    assert chosen == "stdlib"
    assert reason.endswith(f"only {other} is there")


def test_a_fallback_warns_once_when_the_first_receiver_opens(plain):
    _, reason = plain.choice("auto")
    done = plain.run(OPEN_TWO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("RuntimeWarning ")
    assert reason in done.stdout
    assert "MULTICAST_BACKEND=stdlib" in done.stdout


@pytest.mark.parametrize(
    "how", ["multicast.Receiver(near)", "multicast.open_receiver('239.255.0.4', 19_998, interface='lo')"]
)
def test_a_fallback_is_warned_of_where_the_receiver_is_opened(plain, how):
    code = f"import multicast, socket\nnear, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n{how}.close()"
    done = plain.run(code, "auto")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("<string>:3: RuntimeWarning: receiving through the standard library"), done.stderr


def test_a_fallback_that_is_an_error_leaves_nothing_open(plain):
    code = """
import gc, multicast, os, warnings
warnings.simplefilter("error")
before = os.listdir("/proc/self/fd")
for attempt in range(2):
    try:
        multicast.open_receiver("239.255.0.4", 19_998, interface="lo").close()
    except RuntimeWarning:
        assert attempt == 0
    else:
        assert attempt == 1
    gc.collect()
    assert os.listdir("/proc/self/fd") == before
"""
    done = plain.run(code, "auto")
    assert (done.returncode, done.stderr) == (0, "")


def test_stdlib_does_not_warn(plain):
    done = plain.run(OPEN_TWO, "stdlib")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_native_does_not_warn(full):
    done = full.run(OPEN_TWO, "auto")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# With one that is broken: never a quiet slow path ------------------------------------------------------------------


def no_sections(data: bytes) -> bytes:
    """A shared object without the table of its sections, which a loader does not need: e_shoff and e_shnum, elf(5)."""
    return data[:40] + bytes(8) + data[48:60] + bytes(2) + data[62:]


BROKEN = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "its magic number": lambda data: data[:4],
    "part of its header": lambda data: data[:40],
    "its header": lambda data: data[:64],
    "the first of its segments": lambda data: data[:1000],
    "half": lambda data: data[: len(data) // 2],  # which the system's loader maps, and dies of (SIGBUS)
    "all but one byte": lambda data: data[:-1],
    "two pages, and no sections": lambda data: no_sections(data)[:8192],
    "text": lambda data: b"Not Found\n",
}


@pytest.mark.parametrize("word", ["auto", "native"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_extension_is_an_error(full, how, word):
    full.extension.write_bytes(BROKEN[how](full.extension.read_bytes()))
    done = full.run(REPORT, word)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "ImportError: " in done.stderr
    assert full.extension.name in done.stderr


def test_an_extension_that_is_cut_short_is_told_with_what_is_there_and_what_to_do(full):
    data = full.extension.read_bytes()
    full.extension.write_bytes(data[:-1])
    text = full.import_error()
    assert text.startswith(f"the extension {full.extension} is cut short: {len(data) - 1} bytes of {len(data)}. ")
    assert "pip install --force-reinstall multicast-skt" in text
    assert full.choice("stdlib")[0] == "stdlib"


@pytest.mark.parametrize("how", [no_sections, lambda data: data + b"signed"], ids=["stripped", "with more behind it"])
def test_an_extension_that_is_whole_for_the_loader_is_taken(full, how):
    full.extension.write_bytes(how(full.extension.read_bytes()))
    assert full.choice()[0] == "native"


def test_an_extension_that_fails_to_import_something_is_an_error(full):
    (full.package / "_values.py").rename(full.package / "_other.py")
    for path in full.package.glob("*.py"):
        path.write_text(path.read_text("utf-8").replace("from ._values", "from ._other"), "utf-8")
    assert full.choice("stdlib")[0] == "stdlib"
    done = full.run(REPORT, "auto")
    assert (done.returncode, done.stdout) == (1, "")
    assert "_values" in done.stderr.splitlines()[-1]


def edited(copy: Copy, name: str, old: str, new: str) -> None:
    path = copy.package / name
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize("word", ["auto", "native"])
def test_an_extension_of_another_version_is_an_error(full, native, word):
    edited(full, "__init__.py", f'__version__ = "{native.__version__}"', '__version__ = "999.1"')
    text = full.import_error(word)
    assert f"the extension {full.extension} is stale: " in text
    assert native.__version__ in text
    assert "999.1" in text
    assert "MULTICAST_BACKEND=stdlib" in text
    assert full.choice("stdlib")[0] == "stdlib"


@pytest.mark.parametrize("word", ["auto", "native"])
def test_an_extension_that_lacks_a_name_is_an_error(full, word):
    edited(full, "_extension_check.py", "BACKEND_NAMES = (\n", 'BACKEND_NAMES = (\n    "a_later_verb",\n')
    text = full.import_error(word)
    assert f"the extension {full.extension} is stale: " in text
    assert "lacks a_later_verb" in text


def test_something_else_in_the_extensions_place_is_an_error(plain):
    (plain.package / "_skt").mkdir()
    assert "is stale: it lacks " in plain.import_error("auto")


# What importing does -----------------------------------------------------------------------------------------------

NOT_NEEDED = """
argparse asyncio concurrent ctypes dataclasses email http importlib.metadata inspect json logging multiprocessing numpy
pathlib pickle random re ssl subprocess tempfile threading tokenize typing unittest urllib
"""
LOADED = """
import sys
sys.path.insert(0, {directory!r})
import {beside}
before = set(sys.modules)
import multicast
print(multicast.BACKEND, *sorted(set(sys.modules) - before))
"""


@pytest.fixture
def beside(multicast) -> str:
    """What is there before the package is imported. In a wheel for all Pythons (abi3) Cython itself asks `inspect`."""
    return "socket, inspect" if ".abi3." in multicast.skt._backend.__file__ else "socket"


@pytest.fixture
def each_backend(request, multicast) -> tuple[Copy, str]:
    """A copy for one backend and then for the other, and the word that chooses that."""
    return request.getfixturevalue({"native": "full", "stdlib": "plain"}[multicast.BACKEND]), multicast.BACKEND


def test_importing_loads_only_what_a_socket_needs(each_backend, beside):
    copy, word = each_backend
    done = copy.run(LOADED.format(directory=str(copy.directory), beside=beside), word)
    assert done.returncode == 0, done.stderr
    backend, *loaded = done.stdout.split()
    assert backend == word
    assert {name for name in loaded if {name, name.partition(".")[0]} & set(NOT_NEEDED.split())} == set()
    other = "multicast._skt" if word == "stdlib" else "multicast._skt_py"
    assert other not in loaded


def test_importing_opens_no_socket_and_starts_nothing(each_backend):
    copy, word = each_backend
    code = """
import socket, sys, threading
seen = []
watched = ("socket.", "subprocess.", "os.system", "os.fork", "os.exec", "ctypes.", "urllib.", "_thread.start")
sys.addaudithook(lambda event, _: event.startswith(watched) and seen.append(event))
socket.socket().close()
assert seen == ["socket.__new__"], seen
seen.clear()
import multicast
assert seen == [], seen
assert threading.active_count() == 1
print(multicast.BACKEND)
"""
    done = copy.run(code, word)
    assert (done.returncode, done.stdout) == (0, f"{word}\n"), done.stderr


def test_importing_prints_nothing(each_backend):
    copy, word = each_backend
    done = copy.run("import multicast", word, "-W", "always")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_costs_at_most_a_third_of_asyncio_over_a_socket(each_backend, beside):
    """That is 10 ms where asyncio takes 30, as on an idle machine; on a busy one both take longer."""
    copy, word = each_backend
    assert compileall.compile_dir(copy.package, quiet=1)
    code = """
import sys, time
sys.path.insert(0, {directory!r})
import {beside}
begin = time.process_time()
import multicast
middle = time.process_time()
import asyncio
print((middle - begin) / (time.process_time() - middle))
"""
    runs = [copy.run(code.format(directory=str(copy.directory), beside=beside), word) for _ in range(10)]
    assert [done.stderr for done in runs if done.returncode] == []
    assert min(float(done.stdout) for done in runs) <= 1 / 3
