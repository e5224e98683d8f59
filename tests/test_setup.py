"""What setup.py does with what it is told: by the environment, by a setting of the build, by the system."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

SETUP = Path(__file__).resolve().parent.parent / "setup.py"
if not SETUP.exists():
    pytest.skip("only the tests were copied to here", allow_module_level=True)


@pytest.fixture
def script(monkeypatch):
    """Run setup.py as far as to its last line; what it defines, and what it hands to setuptools."""
    handed: dict[str, object] = {}
    monkeypatch.setattr(setuptools, "setup", handed.update)
    monkeypatch.chdir(SETUP.parent)
    for name in ("MULTICAST_BACKEND", "CFLAGS", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)

    def run() -> SimpleNamespace:
        handed.clear()
        return SimpleNamespace(**runpy.run_path(str(SETUP)), handed=handed)

    return run


def compile_arguments(script) -> list[str]:
    (extension,) = script().handed["ext_modules"]
    return extension.extra_compile_args


linux = pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux")


# The extension -----------------------------------------------------------------------------------------------------


@linux
def test_the_extension_is_optional_unless_native_is_asked_for(script, monkeypatch):
    assert [each.optional for each in script().handed["ext_modules"]] == [True]
    monkeypatch.setenv("MULTICAST_BACKEND", "native")
    assert [each.optional for each in script().handed["ext_modules"]] == [False]
    monkeypatch.setenv("MULTICAST_BACKEND", "stdlib")
    assert script().handed["ext_modules"] == []


def test_an_unknown_word_ends_the_build(script, monkeypatch):
    monkeypatch.setenv("MULTICAST_BACKEND", "pure")
    with pytest.raises(SystemExit, match="MULTICAST_BACKEND='pure': use auto, native or stdlib"):
        script()


def test_native_where_it_can_not_be_had_ends_the_build(script, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert script().handed["ext_modules"] == []
    monkeypatch.setenv("MULTICAST_BACKEND", "native")
    with pytest.raises(SystemExit, match="the native backend is for CPython on Linux"):
        script()


@linux
@pytest.mark.parametrize(
    ("flags", "there", "not_there"),
    [
        (None, ["-g0", "-D_FORTIFY_SOURCE=3"], ["-O3"]),  # Python's own flags have their -O
        ("", ["-O3", "-DNDEBUG", "-g0", "-D_FORTIFY_SOURCE=3"], []),
        ("-march=native", ["-O3", "-DNDEBUG"], []),
        ("-O2 -march=native", ["-g0"], ["-O3"]),
        ("-g -O1", ["-D_FORTIFY_SOURCE=3"], ["-g0", "-O3"]),
        ("-fsanitize=address,undefined -O1 -g", ["-fstack-protector-strong"], ["-D_FORTIFY_SOURCE=3", "-g0", "-O3"]),
    ],
)
def test_flags_of_the_users_add_to_ours_and_do_not_take_the_optimisation(script, monkeypatch, flags, there, not_there):
    if flags is not None:
        monkeypatch.setenv("CFLAGS", flags)
    arguments = compile_arguments(script)
    assert set(there) <= set(arguments)
    assert set(not_there) & set(arguments) == set()


@linux
def test_a_setting_asks_for_the_limited_api(script):
    found = script()
    distribution = Distribution({"ext_modules": found.handed["ext_modules"]})
    distribution.get_option_dict("bdist_wheel")["py_limited_api"] = ("command line", "cp312")
    command = found.BuildExt(distribution)
    command.finalize_options()
    command.initialize_options()  # as setuptools does: the macros are not to add up
    command.finalize_options()
    (extension,) = distribution.ext_modules
    assert extension.py_limited_api
    assert [each for each in extension.define_macros if each[0] == "Py_LIMITED_API"] == [
        ("Py_LIMITED_API", "0x030C0000")
    ]
    assert ".abi3" in command.get_ext_filename("multicast._skt")


@linux
def test_what_an_earlier_build_left_for_other_pythons_does_not_get_into_a_wheel(script, monkeypatch, tmp_path):
    found = script()
    monkeypatch.setattr(build_ext, "build_extension", lambda *_: None)
    command = found.BuildExt(Distribution({"ext_modules": found.handed["ext_modules"]}))
    command.build_lib, command.build_temp = str(tmp_path), str(tmp_path)
    command.finalize_options()
    wanted = tmp_path / command.get_ext_filename("multicast._skt")
    wanted.parent.mkdir()
    for name in (wanted.name, "_skt.abi3.so", "_skt.cpython-39-x86_64-linux-gnu.so", "skt.py"):
        (wanted.parent / name).touch()
    command.build_extension(command.extensions[0])
    assert {each.name for each in wanted.parent.iterdir()} == {wanted.name, "skt.py"}


@pytest.mark.parametrize(("oldest", "value"), [("cp312", "0x030C0000"), ("cp315", "0x030F0000")])
def test_the_oldest_python_becomes_the_macro(script, oldest, value):
    assert script().limited_api(oldest) == value


@pytest.mark.parametrize("oldest", ["cp311", "cp3", "312", "cp3x", "py312", ""])
def test_a_python_that_is_too_old_for_it_is_refused(script, oldest):
    with pytest.raises(
        SystemExit, match=re.escape(f"--py-limited-api={oldest}: the oldest that can be asked for is cp312")
    ):
        script().limited_api(oldest)


# Distributions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["linux-x86_64", "macosx-11.0-arm64", "win-amd64"])
def test_a_wheel_without_an_extension_is_for_one_system_all_the_same(script, monkeypatch, system):
    monkeypatch.setattr("sysconfig.get_platform", lambda: system)
    command = script().BdistWheel(Distribution({"name": "multicast-skt", "version": "1.2.3"}))
    command.finalize_options()
    assert command.get_tag() == ("py3", "none", system.replace("-", "_").replace(".", "_"))


def test_the_bill_of_materials_names_what_is_compiled_in_and_nothing_else(script, monkeypatch):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = script()
    for compiled, within in ((True, ["Cython"]), (False, [])):
        bill = found.bill_of_materials(compiled)
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
        assert [each["name"] for each in bill["components"]] == within
        assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/multicast-skt@{found.version()}"
        assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_without_a_date_of_the_sources_the_bill_has_none(script):
    assert "timestamp" not in script().bill_of_materials(compiled=False)["metadata"]


def test_only_the_kind_of_source_distribution_that_is_published_is_reproducible(script, monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    command = script().Sdist(Distribution())
    with pytest.raises(SystemExit, match="no reproducible zip"):
        command.make_archive(str(tmp_path / "it"), "zip", base_dir=str(tmp_path))


def test_an_archive_says_nothing_of_who_made_it_and_when(script, monkeypatch, tmp_path):
    import tarfile

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    command = script().Sdist(Distribution())
    monkeypatch.chdir(tmp_path)
    made = []
    for mode in (0o600, 0o666):
        Path("tree").mkdir(exist_ok=True, mode=0o700)
        for name in ("b", "a"):
            Path("tree", name).write_text(name, "utf-8")
            Path("tree", name).chmod(mode)
        made.append(Path(command.make_archive(f"{mode}", "gztar", base_dir="tree")).read_bytes())
    assert made[0] == made[1]
    with tarfile.open(f"{0o600}.tar.gz") as archive:
        assert archive.getnames() == ["tree", "tree/a", "tree/b"]
        assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in archive} == {
            (0, 0, "", "", 1_700_000_000)
        }
        assert [each.mode for each in archive] == [0o755, 0o644, 0o644]
