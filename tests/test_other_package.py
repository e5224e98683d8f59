"""The other project that installs a package called `multicast`: told from strays, and said at import.

Of a file that both have, the last one installed is there; whatever of ours can come to run has to say it. The other
project's files are copied in what matters here: which there are, and what its package imports.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from types import ModuleType

import pytest
from net import python_environment

# What release 2.1.1 of the distribution `multicast` installs into the package's folder.
THEIRS = {
    "__init__.py": '__version__ = "2.1.1"\nimport logging\nfrom . import exceptions, env, skt, recv, send, hear\n',
    "__main__.py": "from . import hear\ndef cli(): print('theirs')\ncli()\n",
    "env.py": "from . import logging\n",
    "exceptions.py": "from . import logging\n",
    "hear.py": "",
    "recv.py": "",
    "send.py": "",
    "skt.py": "from . import logging\n",  # which this project's __init__ has not
}
SHARED = ("__init__.py", "__main__.py", "skt.py")


class Installed:
    """A folder as pip leaves it, in which the package under test is."""

    def __init__(self, package: ModuleType, directory: pathlib.Path) -> None:
        self.tested, self.folder = package, directory / "multicast"
        source = pathlib.Path(package.__file__).parent
        shutil.copytree(source, self.folder, ignore=shutil.ignore_patterns("__pycache__"))

    def has_theirs(self, *, shared: tuple[str, ...]) -> None:
        """Install the other project; of the files that both have, those named are its own."""
        for name, text in THEIRS.items():
            if name not in SHARED or name in shared:
                (self.folder / name).write_text(text, "utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = python_environment(self.tested) | {"PYTHONPATH": str(self.folder.parent)}
        command = [sys.executable, "-P", "-S", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def installed(multicast, tmp_path) -> Installed:
    return Installed(multicast, tmp_path)


def refused(done: subprocess.CompletedProcess[str], folder: pathlib.Path) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert f"ImportError: two projects are installed in {folder} " in last
    assert "pip uninstall multicast multicast-skt && pip install multicast-skt" in last


MIXTURES = [(), ("__main__.py",), ("skt.py",), ("__init__.py",)]  # a tool may install several wheels at a time


@pytest.mark.parametrize("shared", MIXTURES, ids=" ".join)
def test_with_the_other_project_in_its_folder_the_package_says_so(installed, shared):
    installed.has_theirs(shared=shared)
    refused(installed.run("-c", "import multicast"), installed.folder)


def test_the_program_says_so_without_a_traceback(installed):
    installed.has_theirs(shared=())
    done = installed.run("-m", "multicast")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"two projects are installed in {installed.folder} " in done.stderr


def test_installed_last_the_other_project_is_all_there_is(installed):
    """Nothing of this package runs then, and nothing of it can say so: docs/installing.md tells the symptoms."""
    installed.has_theirs(shared=SHARED)
    done = installed.run("-c", "import multicast; print(multicast.__version__, hasattr(multicast, 'open_receiver'))")
    assert (done.returncode, done.stdout) == (0, "2.1.1 False\n"), done.stderr


def test_strays_beside_it_are_nobodys_business(installed):
    for name in ("send.py", "recv.py", "hear.py~", ".hear.py.swp", "env.py", "hear.txt"):
        (installed.folder / name).write_text("", "utf-8")
    (installed.folder / "__pycache__").mkdir()
    (installed.folder / "__pycache__" / "hear.cpython-311.pyc").write_bytes(b"")
    (installed.folder / "hear.py").mkdir()
    done = installed.run("-c", "import multicast; print(multicast.__version__)")
    assert (done.returncode, done.stdout) == (0, f"{installed.tested.__version__}\n"), done.stderr


def test_a_checkout_beside_the_other_project_is_whole(installed, tmp_path):
    """An editable installation's own folder is the checkout; the other project is in another one, and shadowed."""
    (tmp_path / "site" / "multicast").mkdir(parents=True)
    for name, text in THEIRS.items():
        (tmp_path / "site" / "multicast" / name).write_text(text, "utf-8")
    code = f"import sys; sys.path.append({os.fspath(tmp_path / 'site')!r}); import multicast; print(multicast.__file__)"
    done = installed.run("-c", code)
    assert (done.returncode, done.stdout) == (0, f"{installed.folder / '__init__.py'}\n"), done.stderr


def test_none_of_its_own_files_is_ours(multicast):
    here = {path.name for path in pathlib.Path(multicast.__file__).parent.iterdir()}
    assert here & set(THEIRS) == set(SHARED)
    assert set(multicast._other_package.ITS_OWN) <= set(THEIRS) - set(SHARED)
