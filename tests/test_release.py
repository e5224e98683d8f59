"""What `dev.py wheels` asks of a distribution: each of its checks finds what is planted, and nothing in a good one."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

contents = pytest.importorskip("contents")  # of release/, which is not where only the tests were copied to
interpreters = pytest.importorskip("interpreters")
trial = pytest.importorskip("trial")
wheels = pytest.importorskip("wheels")

SOURCES = {
    "multicast/__init__.py",
    "multicast/skt.py",
    "multicast/py.typed",
    "multicast/_skt.pyx",
    "multicast/cli/send.py",
}
PACKAGED = sorted(SOURCES - {"multicast/_skt.pyx"})
INFO = "multicast_skt-1.2.3.dist-info"
EXTENSION = "multicast/_skt.cpython-311-x86_64-linux-gnu.so"
BILL = f"{INFO}/sboms/multicast-skt.cdx.json"
NATIVE = "cp311-cp311-manylinux_2_28_x86_64"
METADATA = "Metadata-Version: 2.4\nName: multicast-skt\nRequires-Dist: rich>=13.7; extra == 'cli'\n"


def bill(*names: str) -> str:
    """A bill of materials in CycloneDX that lists these."""
    components = [{"type": "library", "name": name} for name in names]
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components})


def packed(folder: Path, tag: str, changed: dict[str, str | bytes | None]) -> Path:
    """A wheel as it should be, but for what is changed: files by name, None for one that is left out."""
    native = "-none-" not in tag
    files: dict[str, str | bytes | None] = dict.fromkeys(["multicast/", *PACKAGED], "")
    files |= {f"{INFO}/METADATA": METADATA, BILL: bill("Cython") if native else bill()}
    files |= {EXTENSION: "an extension"} if native else {}
    path = folder / f"multicast_skt-1.2.3-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | changed).items():
            if data is not None:
                archive.writestr(name, data)
    return path


@pytest.mark.parametrize("tag", [NATIVE, "cp312-abi3-musllinux_1_2_aarch64", "py3-none-macosx_11_0_arm64"])
def test_a_wheel_as_it_should_be_has_no_fault(tmp_path, tag):
    assert contents.wheel_faults(packed(tmp_path, tag, {}), SOURCES) == []


FAULTS: dict[str, tuple[str, dict[str, str | bytes | None], str]] = {
    "a file of the package left out": (NATIVE, {"multicast/skt.py": None}, "multicast/skt.py is missing"),
    "the mark of types left out": (NATIVE, {"multicast/py.typed": None}, "multicast/py.typed is missing"),
    "a source of the extension": (NATIVE, {"multicast/_skt.pyx": ""}, "multicast/_skt.pyx is not of the sources"),
    "a file of nobody's": (NATIVE, {"multicast/old.py": ""}, "multicast/old.py is not of the sources"),
    "no extension": (NATIVE, {EXTENSION: None, BILL: bill()}, "0 extensions in a wheel tagged cp311"),
    "two extensions": (NATIVE, {"multicast/_skt.abi3.so": ""}, "2 extensions in a wheel tagged cp311"),
    "an extension in a wheel of Python": (
        "py3-none-win_amd64",
        {EXTENSION: "", BILL: bill("Cython")},
        "1 extensions in a wheel tagged none",
    ),
    "no bill of materials": (NATIVE, {BILL: None}, "no bill of materials (PEP 770)"),
    "a bill with less": (NATIVE, {BILL: bill()}, "its bill of materials lists [], not ['Cython']"),
    "a bill of another form": (
        NATIVE,
        {BILL: bill("Cython").replace("library", "lib")},
        "no CycloneDX: 'lib' is not one of",
    ),
    "a dependency": (NATIVE, {f"{INFO}/METADATA": "Requires-Dist: numpy\n"}, "needs numpy at run time"),
    "too much": (
        NATIVE,
        {EXTENSION: b"".join(n.to_bytes(4, "big") for n in range(300_000))},
        " bytes, more than 700,000",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_a_wheel_is_found_and_no_other(tmp_path, name):
    tag, changed, reported = FAULTS[name]
    found = contents.wheel_faults(packed(tmp_path, tag, changed), SOURCES)
    assert len(found) == 1, found
    assert reported in found[0]


def test_what_is_no_wheel_is_said(tmp_path):
    assert contents.wheel_faults(tmp_path / "multicast_skt-1.2.3.tar.gz", SOURCES) == [
        "multicast_skt-1.2.3.tar.gz is no wheel's name"
    ]


@pytest.mark.parametrize(
    ("platform", "faults"),
    [
        ("manylinux_2_28_x86_64", []),
        ("manylinux_2_17_x86_64.manylinux2014_x86_64", []),
        ("musllinux_1_2_aarch64", []),
        ("musllinux_1_3_aarch64", ["musllinux_1_3_aarch64 is neither manylinux nor musllinux"]),
        ("linux_x86_64", ["linux_x86_64 is neither manylinux nor musllinux"]),
        ("manylinux_2_31_x86_64", ["manylinux_2_31_x86_64 needs a newer glibc than 2.28"]),
        ("manylinux_2_28_x86_64.manylinux_2_36_x86_64", ["manylinux_2_36_x86_64 needs a newer glibc than 2.28"]),
    ],
)
def test_a_wheel_has_to_be_for_old_systems_too(platform, faults):
    assert contents.platform_faults(f"multicast_skt-1.2.3-cp311-cp311-{platform}.whl") == faults


# Pythons, and what is run in them ----------------------------------------------------------------------------------


def test_a_python_is_found_with_its_version():
    found = interpreters.probed(Path(sys.executable))
    assert found is not None
    assert found.version == sys.version_info[:3]
    assert str(found).startswith("CPython 3.")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('{"implementation": "pypy", "version": [3, 11, 1], "threaded": false, "headers": true}', "another Python"),
        ('{"implementation": "cpython", "version": [3, 10, 9], "threaded": false, "headers": true}', "too old"),
        ('{"implementation": "cpython", "version": [3, 11, 1], "threaded": false, "headers": false}', "no headers"),
        ("Segmentation fault", "broken"),
    ],
)
def test_a_python_that_nothing_can_be_built_for_is_left_out(tmp_path, said, why):
    fake = tmp_path / "python3.99"
    fake.write_text(f"#!/bin/sh\necho '{said}'\n", "utf-8")
    fake.chmod(0o755)
    assert interpreters.probed(fake) is None, why
    assert interpreters.probed(tmp_path / "nowhere") is None


def test_of_one_version_the_newest_is_taken_and_without_the_gil_is_another(tmp_path):
    fakes = []
    for number, (patch, threaded) in enumerate([(1, "false"), (10, "false"), (9, "false"), (2, "true")]):
        fake = tmp_path / f"python{number}"
        said = f'{{"implementation": "cpython", "version": [3, 14, {patch}], "threaded": {threaded}, "headers": true}}'
        fake.write_text(f"#!/bin/sh\necho '{said}'\n", "utf-8")
        fake.chmod(0o755)
        fakes.append(fake)
    assert {each.tag: each.version[2] for each in interpreters.installed(fakes)} == {"cp314": 10, "cp314t": 2}


def test_a_command_that_fails_is_told_with_the_end_of_what_it_said():
    with pytest.raises(interpreters.Failed, match="exit status 3") as raised:
        interpreters.run(sys.executable, "-c", "print('x' * 99_999, 'this is why', sep='\\n'); raise SystemExit(3)")
    assert str(raised.value).endswith("xx\nthis is why")
    assert len(str(raised.value)) < 11_000


def test_what_is_run_gets_nothing_that_could_lead_it_to_the_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("MULTICAST_BACKEND", "stdlib")
    code = "import os; print(*(name for name in os.environ if name.startswith(('PYTHON', 'MULTICAST_'))))"
    assert interpreters.run(sys.executable, "-c", code).stdout == "\n"


# Builds ------------------------------------------------------------------------------------------------------------


def test_two_builds_that_differ_are_refused(tmp_path):
    one, other = tmp_path / "one" / "built.whl", tmp_path / "two" / "built.whl"
    for path in (one, other):
        path.parent.mkdir()
        path.write_bytes(b"the same")
    wheels.alike("a wheel", one, other)
    other.write_bytes(b"the sane")
    with pytest.raises(interpreters.Failed, match="two builds of a wheel differ"):
        wheels.alike("a wheel", one, other)


def test_the_tables_columns_line_up():
    lines = wheels.table([("it", "cp3", "x" * 20, "#", *"12345"), ("it", "cp3-abi3", "y", "#", *"12345")]).splitlines()
    assert [line.index("#") for line in lines[1:]] == [lines[0].index("bytes")] * 2


# Trials ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path, native):
    """A stand-in for an environment: its Python is this one, and it has a copy of the package, with its extension."""
    packages = tmp_path / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    shutil.copytree(Path(native.__file__).parent, packages / "multicast", ignore=shutil.ignore_patterns("__pycache__"))

    class Site:
        folder = tmp_path

        def run(self, *arguments, **options):
            # -I would not look at PYTHONPATH; -S: an editable installation's hooks find the checkout from everywhere
            isolated = ["-S", *(each for each in arguments if each != "-I")]
            more = {"PYTHONPATH": str(packages), "PYTHONSAFEPATH": "1"} | options.pop("environment", {})
            return interpreters.run(sys.executable, *isolated, environment=more, **options)

    return Site()


def test_a_trial_of_a_good_wheel_says_which_backend_is_in_force(site, tmp_path):
    assert trial.try_alone(site, tmp_path) == "native"


def spoiled(site, name: str, old: str, new: str) -> None:
    path = next(site.folder.glob(f"lib/*/site-packages/multicast/{name}"))
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_a_trial_notices_a_wheel_without_its_extension(site, tmp_path):
    next(site.folder.glob("lib/*/site-packages/multicast/_skt.*.so")).unlink()
    with pytest.raises(interpreters.Failed, match="the backend is stdlib: no extension multicast"):
        trial.try_alone(site, tmp_path)


def test_a_trial_notices_that_a_cut_extension_is_taken(site, tmp_path):
    spoiled(site, "skt.py", "_extension_check.refuse_cut()", "pass")
    spoiled(site, "skt.py", "import multicast._skt as _extension", "_extension = __import__('types')")
    with pytest.raises(interpreters.Failed):
        trial.try_alone(site, tmp_path)


def test_a_trial_notices_a_quiet_fallback_from_a_cut_extension(site, tmp_path):
    spoiled(site, "_extension_check.py", "if promised > there:", "if False:")
    spoiled(site, "skt.py", "except ModuleNotFoundError as _error:", "except ImportError as _error:")
    spoiled(site, "skt.py", '_error.name != "multicast._skt"', "False")
    with pytest.raises(interpreters.Failed, match="import multicast has to fail"):
        trial.try_alone(site, tmp_path)


def test_a_trial_notices_a_package_of_another_place(site, tmp_path):
    site.folder = tmp_path / "elsewhere"
    with pytest.raises(interpreters.Failed, match="was imported, not one in"):
        trial.shown(site, tmp_path)


def test_a_trial_notices_a_demo_that_does_nothing(site, tmp_path):
    spoiled(site, "__main__.py", "def run(", "def run():\n    return 0\n\n\ndef _run(")
    with pytest.raises(interpreters.Failed, match="the demo did not do what it is for"):
        trial.try_alone(site, tmp_path)


def test_a_folder_without_a_wheel_is_no_success(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dev.py wheels", "--look", str(tmp_path)])
    assert wheels.main() == 1
    assert "there is no wheel to look at" in capsys.readouterr().err


def test_a_python_that_is_none_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dev.py wheels", "--python", "/no/such/python"])
    assert wheels.main() == 1
    assert "no CPython from 3.11 on with its headers" in (said := capsys.readouterr().err)
    assert "among /no/such/python" in said


def test_jobs_come_in_their_order_and_the_first_that_fails_is_named(capsys):
    def fail():
        raise interpreters.Failed("it broke")

    jobs = [("one", lambda: 1), ("two", fail), ("three", lambda: 3)]
    results = wheels.side_by_side(jobs, 2)
    assert next(results) == 1
    with pytest.raises(interpreters.Failed, match="two: it broke"):
        next(results)
    assert "wheels: one\nwheels: two\n" in capsys.readouterr().err
