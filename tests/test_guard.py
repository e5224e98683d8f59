"""The flat-layout trap: tests that import something else than what is to be tested must not pass."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def checkout(multicast, tmp_path):
    """A checkout without its extension, as it is where a wheel is installed and the tests run in the source tree."""
    package = pathlib.Path(multicast.__file__).parent
    shutil.copytree(package, tmp_path / "multicast", ignore=shutil.ignore_patterns("*.so", "__pycache__", "_skt.c"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("conftest.py", "feeds.py", "net.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / "tests" / "test_any.py").write_text("def test_any(multicast):\n    assert multicast\n")
    return tmp_path


def run(checkout, **environment):
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("MULTICAST_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=checkout,
        env=keep | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no extension to miss")
def test_a_tree_without_the_extension_ends_the_run(checkout):
    done = run(checkout)
    assert done.returncode == 3, done.stdout
    assert "a backend to be tested can't be imported" in done.stdout + done.stderr
    assert "passed" not in done.stdout


def test_the_stdlib_backend_alone_can_be_asked_for_and_the_header_says_what_is_tested(checkout):
    done = run(checkout, MULTICAST_BACKEND="stdlib")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert f"backend stdlib: {checkout / 'multicast' / '_skt_py.py'}" in done.stdout


def test_a_package_from_another_place_than_asked_for_ends_the_run(checkout, tmp_path):
    done = run(checkout, MULTICAST_BACKEND="stdlib", MULTICAST_TEST_LIBRARY=str(tmp_path / "elsewhere"))
    assert done.returncode == 3, done.stdout
    assert "was imported, not one in" in done.stdout + done.stderr


def test_an_unknown_word_ends_the_run(checkout):
    done = run(checkout, MULTICAST_BACKEND="fast")
    assert done.returncode == 3, done.stdout
    assert "use auto, native or stdlib" in done.stdout + done.stderr
