"""Importing the package does nothing else: no socket, no file but its own, no thread, one environment variable.

Each test watches a fresh interpreter which has imported before what the package takes from the standard library: what
is seen is the package's own doing. For each detector there are planted packages that it has to find.

Not seen: C code that walks `environ` itself instead of asking getenv().
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from types import ModuleType

import pytest
from net import python_environment, tool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace and LD_PRELOAD are Linux's")

NEEDED = "import sys\nbefore = set(sys.modules)\nimport {name}\nprint(*sorted(set(sys.modules) - before))"
BEGIN, END = "/the-import-begins", "/the-import-ends"
TRACED = f"""
import importlib, os, sys
for each in sys.argv[2:]:
    importlib.import_module(each)
os.path.exists({BEGIN!r})
importlib.import_module(sys.argv[1])
os.path.exists({END!r})
"""
RECORDED = """
import importlib, os, sys
for each in sys.argv[2:]:
    importlib.import_module(each)
class Recorded(type(os.environ)):
    def __getitem__(self, key):
        os.write(2, f"environ {key}\\n".encode())
        return super().__getitem__(key)
    def __iter__(self):
        os.write(2, b"environ *\\n")
        return super().__iter__()
os.environ.__class__ = Recorded
os.write(2, b"begin\\n")
importlib.import_module(sys.argv[1])
os.write(2, b"end\\n")
os._exit(0)
"""
# getenv() and secure_getenv(), which say what they were asked for.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#define TOLD(function) \
    char *function(const char *name) { \
        char *(*next)(const char *) = (char *(*)(const char *))dlsym(RTLD_NEXT, #function); \
        dprintf(2, "getenv %s\n", name); \
        return next(name); \
    }
TOLD(getenv)
TOLD(secure_getenv)
"""
# What the interpreter does to find, read and load modules, and to have memory; which paths it may open says `strange`.
IMPORTING = """
access brk close faccessat faccessat2 fadvise64 fcntl fstat futex getcwd getdents64 getrandom ioctl lseek lstat madvise
mmap mprotect mremap munmap newfstatat open openat pread64 read readlink readlinkat readv rt_sigaction rt_sigprocmask
stat statx
"""
CALL = re.compile(r"(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)")


@dataclasses.dataclass
class Subject:
    """A package to be imported: its name, its folder, the environment, and what it takes from the standard library."""

    name: str
    folder: pathlib.Path
    environment: dict[str, str]

    def python(self, code: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-S", "-s", "-B", "-c", code, *arguments]

    def needs(self) -> list[str]:
        done = run(self.python(NEEDED.format(name=self.name)), self.environment)
        loaded = done.stdout.splitlines()[-1].split()
        return [each for each in loaded if each.partition(".")[0] in sys.stdlib_module_names]


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def traced(subject: Subject, file: pathlib.Path) -> list[str]:
    """The system calls of the import, as strace writes them."""
    command = [tool("strace", "strace"), "-f", "-s", "4096", "-e", "signal=none", "-o", str(file)]
    run([*command, *subject.python(TRACED, subject.name, *subject.needs())], subject.environment)
    lines = file.read_text("utf-8", "replace").splitlines()
    begin, end = (next(n for n, line in enumerate(lines) if f'"{mark}"' in line) for mark in (BEGIN, END))
    assert begin < end
    return lines[begin + 1 : end]


def strange(subject: Subject, calls: list[str]) -> list[str]:
    """Those of the system calls that importing a package has no need of."""
    found = []
    for line in calls:
        match = CALL.match(line)
        if match is None or match[1] not in IMPORTING.split():
            found.append(line)
        elif match[1].startswith("open") and " = -1 " not in line:
            path = pathlib.Path(re.search(r'"(.*?)"', match[2])[1])
            own = path.is_relative_to(subject.folder) or (path == subject.folder.parent and "O_DIRECTORY" in line)
            if not own or not re.search(r"O_RDONLY(?!.*O_(CREAT|TRUNC|APPEND))", line):
                found.append(line)
    return found


def variables(subject: Subject, shim: pathlib.Path) -> set[str]:
    """The environment variables that the import asks for, in Python or in C."""
    environment = subject.environment | {"LD_PRELOAD": str(shim)}
    said = run(subject.python(RECORDED, subject.name, *subject.needs()), environment).stderr.splitlines()
    assert any(line.startswith("getenv ") for line in said)  # the interpreter's own, as it starts
    return {line.partition(" ")[2] for line in said[said.index("begin") + 1 : said.index("end")]}


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    run(command, dict(os.environ))
    return folder / "shim.so"


@pytest.fixture
def subject(multicast: ModuleType) -> Subject:
    """The package under test, with one backend and then with the other."""
    return Subject("multicast", pathlib.Path(multicast.__file__).parent, python_environment(multicast))


def planted(directory: pathlib.Path, code: str) -> Subject:
    """A package that does something when it is imported."""
    folder = directory / "planted"
    folder.mkdir()
    (folder / "__init__.py").write_text(code)
    return Subject("planted", folder, os.environ | {"PYTHONPATH": str(directory), "PLANTED": "1"})


def test_it_opens_nothing_but_its_own_files_and_starts_nothing(subject, tmp_path):
    calls = traced(subject, tmp_path / "trace")
    opened = [line for line in calls if f'"{subject.folder}/' in line]
    assert opened  # it was this package that was watched
    assert strange(subject, calls) == []


def test_it_asks_for_no_variable_but_the_documented_one(subject, shim):
    assert variables(subject, shim) == {"MULTICAST_BACKEND"}


DOING = {
    "a socket": ("import socket\nsocket.socket().close()", "socket("),
    "a file": ("open('/etc/passwd').close()", '"/etc/passwd"'),
    "a file in /proc": ("open('/proc/self/status').close()", '"/proc/self/status"'),
    "writing": ("open(__file__ + '.new', 'w').close()", "O_CREAT"),
    "deleting": ("import os\ntry: os.unlink(__file__ + '.old')\nexcept OSError: pass", "unlink"),
    "a thread": ("import threading\nthread = threading.Thread(target=int)\nthread.start()\nthread.join()", "clone"),
    "a process": ("import os\npid = os.fork()\npid or os._exit(0)\nos.waitpid(pid, 0)", "clone|fork"),
    "output": ("print('hello', flush=True)", "write("),
}


@pytest.mark.parametrize("what", DOING)
def test_what_a_package_does_beside_is_noticed(tmp_path, what):
    code, expected = DOING[what]
    subject = planted(tmp_path, code)
    found = strange(subject, traced(subject, tmp_path / "trace"))
    assert any(any(each in line for each in expected.split("|")) for line in found), found


def test_a_package_that_does_nothing_is_not_accused(tmp_path, shim):
    subject = planted(tmp_path, "import socket")
    assert strange(subject, traced(subject, tmp_path / "trace")) == []
    assert variables(subject, shim) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ.get('PLANTED')",
        "import os\nos.getenv('PLANTED')",
        "from os import environ\n'PLANTED' in environ",
        "import ctypes\nctypes.CDLL(None).getenv(b'PLANTED')",
        "import ctypes\nctypes.CDLL(None).secure_getenv(b'PLANTED')",
    ],
    ids=["get", "getenv", "in", "C", "C, secure"],
)
def test_a_variable_that_a_package_asks_for_is_noticed(tmp_path, shim, code):
    assert "PLANTED" in variables(planted(tmp_path, code), shim)


def test_the_environment_read_as_a_whole_is_noticed(tmp_path, shim):
    assert "*" in variables(planted(tmp_path, "import os\nlist(os.environ)"), shim)
