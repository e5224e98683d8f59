"""The workflows, the wheels that they build and the files of a release: what can be said of them without a run.

Each check is shown to fire on a mistake planted in a copy.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"
if not WORKFLOWS.is_dir():
    pytest.skip("no .github beside these tests: they are a copy", allow_module_level=True)

NAMES = sorted(each.name for each in WORKFLOWS.glob("*.yml"))


def text_of(name: str) -> str:
    return (WORKFLOWS / name).read_text("utf-8")


def parsed(text: str) -> dict:
    import ruamel.yaml  # which check-jsonschema reads files with

    return ruamel.yaml.YAML(typ="safe").load(text)


def ran(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of the virtual environment, or a module of it."""
    tools = sysconfig.get_path("scripts")
    search = os.pathsep.join([tools, os.environ["PATH"]])
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={"PATH": search, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def load(file: pathlib.Path):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load(ROOT / "release" / "expected.py")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


# The wheels --------------------------------------------------------------------------------------------------------


def identifiers(platform: str, **environment: str) -> list[str]:
    command = (sys.executable, "-P", "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform)
    done = ran(*command, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("platform", "tags", "count"),
    [("linux", release.LINUX, 28), ("macos", release.MACOS, 14), ("windows", release.WINDOWS, 14)],
)
def test_what_is_built_is_what_a_release_consists_of(platform, tags, count):
    found = identifiers(platform)
    assert sorted(found) == sorted(f"{python}-{tag}" for tag in tags for python in release.PYTHONS)
    assert len(found) == count


def environment_of(job: dict) -> dict[str, str]:
    """Return how a job of a workflow sets cibuildwheel up, but for the architecture: of those, each runner has one."""
    return {name: word for name, word in job["env"].items() if name.startswith("CIBW_") and name != "CIBW_ARCHS"}


def test_the_wheels_for_the_stable_abi_are_built_by_the_first_python_and_tested_with_each_later_one():
    job = parsed(text_of("wheels.yml"))["jobs"]["abi3"]
    environment = environment_of(job)
    found = identifiers("linux", **environment)
    assert sorted(found) == sorted(f"{python}-{tag}" for tag in release.LINUX for python in release.STABLE_ABI)
    for tag in release.LINUX:  # the order is that in which they are built
        assert next(each for each in found if each.endswith(tag)) == f"cp312-{tag}"
    assert environment["CIBW_CONFIG_SETTINGS"] == "--build-option=--py-limited-api=cp312"
    assert job["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]


def test_nothing_is_built_with_flags_of_its_own():
    """CFLAGS replaces what Python was built with, -O3 among it, and doesn't add to it."""
    for block in (PROJECT["tool"]["cibuildwheel"], *map(parsed, map(text_of, NAMES))):
        assert "CFLAGS" not in json.dumps(block, default=str)


def test_the_schema_of_cibuildwheel_accepts_the_block_and_refuses_a_mistake():
    import fastjsonschema

    package = pathlib.Path(importlib.util.find_spec("cibuildwheel").origin).parent
    schema = json.loads((package / "resources" / "cibuildwheel.schema.json").read_text("utf-8"))
    validate = fastjsonschema.compile(schema)
    block = PROJECT["tool"]["cibuildwheel"]
    validate(block)
    for mistake in ({"build": 5}, {"no-such-key": "x"}, {"linux": {"archs": 5}}):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            validate(block | mistake)


def requirements(name: str) -> dict[str, str]:
    """Return what a file of requirements pins, by the package's name."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / ".github" / name).read_text("utf-8"), re.MULTILINE)
    return {package.lower(): version for package, version in found}


def test_the_tools_of_the_workflows_are_pinned_by_their_hashes():
    lines = (ROOT / ".github" / "build-tools.txt").read_text("utf-8").replace("\\\n", "").splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(pins) == len(requirements("build-tools.txt")) >= 10
    for pin in pins:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", pin), pin


def test_cibuildwheel_is_here_what_it_is_in_the_workflows_or_another_release_of_the_range():
    from packaging.requirements import Requirement

    extra = PROJECT["project"]["optional-dependencies"]["test"]
    (wanted,) = (each for each in map(Requirement, extra) if each.name == "cibuildwheel")
    assert requirements("build-tools.txt")["cibuildwheel"] in wanted.specifier


def test_the_oldest_tools_that_are_tried_are_the_lower_bounds_of_the_build():
    from packaging.requirements import Requirement
    from packaging.version import Version

    oldest = requirements("oldest.txt")
    needed = {each.name.lower(): each for each in map(Requirement, PROJECT["build-system"]["requires"])}
    assert oldest.keys() == needed.keys()
    for name, requirement in needed.items():
        (bound,) = (Version(each.version) for each in requirement.specifier if each.operator == ">=")
        pinned = Version(oldest[name])
        assert pinned in requirement.specifier
        assert pinned.release[: len(bound.release)] == bound.release  # setuptools 77.0 was withdrawn: 77.0.3


# The workflows -----------------------------------------------------------------------------------------------------

PINNED = re.compile(r"[\w.-]+(?:/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
OWN = "$/.github/workflows/"  # a workflow of this very commit


def faults(text: str) -> list[str]:
    """Return what a workflow lacks of what each is to have."""
    workflow = parsed(text)
    found = []
    if workflow.get("permissions") != {}:
        found.append("permissions at the top are not {}")
    if "concurrency" not in workflow:
        found.append("no concurrency")
    used = re.findall(r"^[ -]*uses: *(.*)$", text, re.MULTILINE)
    loose = [each for each in used if not each.startswith(OWN) and not PINNED.fullmatch(each)]
    found += [f"not pinned to a commit, with its version beside it: {each}" for each in loose]
    for name, job in workflow["jobs"].items():
        if "permissions" not in job:
            found.append(f"{name}: no permissions of its own")
        if "timeout-minutes" not in job and "uses" not in job:
            found.append(f"{name}: no timeout")
        for step in job.get("steps", ()):
            if (
                step.get("uses", "").startswith("actions/checkout@")
                and step.get("with", {}).get("persist-credentials") is not False
            ):
                found.append(f"{name}: the checkout leaves its credentials behind")
            # Without CI in their environment, tests skip what the machine does not let them do.
            run = step.get("run", "")
            if run.startswith("sudo") and not run.startswith(("sudo --preserve-env=CI", "sudo .ci/run packages")):
                found.append(f"{name}: CI does not get through: {run}")
    return found


def test_the_workflows_are_there():
    assert NAMES == ["docs.yml", "lint.yml", "publish.yml", "scorecard.yml", "tests.yml", "wheels.yml"]


@pytest.mark.parametrize("name", NAMES)
def test_each_workflow_has_what_each_is_to_have(name):
    assert faults(text_of(name)) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("\npermissions: {}\n", "\npermissions: read-all\n", "permissions at the top"),
        ("\npermissions: {}\n", "\n", "permissions at the top"),
        ("concurrency:", "env:", "no concurrency"),
        (" # v7.0.1", "", "not pinned"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7", "not pinned"),
        ("    permissions:\n      contents: read # the checkout\n", "", "no permissions of its own"),
        ("    timeout-minutes: 60\n", "", "no timeout"),
        ("persist-credentials: false", "persist-credentials: true", "leaves its credentials"),
        ("        with:\n          persist-credentials: false\n", "", "leaves its credentials"),
        ("sudo --preserve-env=CI .ci/run", "sudo .ci/run", "CI does not get through"),
    ],
)
def test_a_planted_fault_of_a_workflow_is_found(right, wrong, fault):
    text = text_of("tests.yml")
    planted = text.replace(right, wrong, 1)
    assert planted != text
    (found,) = faults(planted)
    assert fault in found


def test_no_secret_is_named_and_a_token_is_given_out_by_two_jobs_at_publishing_alone():
    jobs = {}
    for name in NAMES:
        assert "secrets." not in text_of(name)
        for job, content in parsed(text_of(name))["jobs"].items():
            jobs[name, job] = content
    given = {where for where, job in jobs.items() if (job["permissions"] or {}).get("id-token") == "write"}
    publishing = {("publish.yml", "attest"), ("publish.yml", "publish")}
    assert given == publishing | {("docs.yml", "deploy"), ("scorecard.yml", "analysis")}
    for where in publishing:
        assert not [step for step in jobs[where]["steps"] if "run" in step or "checkout" in step["uses"]]
    assert jobs["publish.yml", "publish"]["needs"] == ["expected", "attest"]
    assert jobs["publish.yml", "publish"]["environment"] == "pypi"


def test_nothing_is_cached_on_the_way_to_a_release():
    for name in ("publish.yml", "wheels.yml"):
        assert "cache" not in text_of(name)


def schema_refuses(schema: str, *files: object) -> str:
    done = ran(sys.executable, "-P", "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


def test_the_schemas_of_github_accept_the_workflows_and_refuse_a_mistake(tmp_path):
    assert schema_refuses("github-workflows", *(WORKFLOWS / name for name in NAMES)) == ""
    planted = tmp_path / "planted.yml"
    planted.write_text(text_of("lint.yml").replace("runs-on:", "runs-where:"), "utf-8")
    assert "runs-where" in schema_refuses("github-workflows", planted)


def test_the_schema_of_dependabot_accepts_its_file_and_refuses_a_mistake(tmp_path):
    file = ROOT / ".github" / "dependabot.yml"
    assert schema_refuses("dependabot", file) == ""
    updates = parsed(file.read_text("utf-8"))["updates"]
    assert [each["package-ecosystem"] for each in updates] == ["github-actions", "pip"]
    assert all(each["cooldown"]["default-days"] >= 7 for each in updates)
    planted = tmp_path / "dependabot.yml"
    planted.write_text(file.read_text("utf-8").replace("weekly", "hourly"), "utf-8")
    assert "hourly" in schema_refuses("dependabot", planted)


def zizmor(*files: object) -> str:
    """Return what zizmor, at its strictest but for its own research, has to say: nothing if there is nothing."""
    done = ran("zizmor", "--offline", "--quiet", "--no-progress", "--persona", "pedantic", *files)
    assert done.returncode in (0, 11, 12, 13, 14), done.stderr
    return done.stdout if done.returncode else ""


def test_zizmor_finds_nothing_in_the_workflows_but_what_is_planted(tmp_path):
    assert zizmor(ROOT / ".github") == ""
    planted = tmp_path / "planted.yml"
    planted.write_text(re.sub(r"checkout@\w+ # v7.0.1", "checkout@v7", text_of("lint.yml")), "utf-8")
    assert "unpinned-uses" in zizmor(planted)
    step = "      - run: echo ${{ github.event.pull_request.title }}\n"
    planted.write_text(text_of("lint.yml") + step, "utf-8")
    assert "template-injection" in zizmor(planted)


def test_no_finding_of_zizmor_is_hushed_up():
    assert not (ROOT / ".github" / "zizmor.yml").exists()
    assert not [name for name in NAMES if "zizmor" in text_of(name)]


# The files of a release --------------------------------------------------------------------------------------------


def built() -> list[str]:
    """Return the names of a release's files as the tools give them."""
    versions = {"manylinux": "2_28", "musllinux": "1_2", "macosx": "11_0"}
    put = re.compile(f"-({'|'.join(versions)})_")
    return [put.sub(lambda found: f"-{found[1]}_{versions[found[1]]}_", name) for name in release.expected("1.2.3")]


def test_a_release_has_a_source_distribution_and_36_wheels_none_of_them_for_any_platform():
    assert len(built()) == 37
    assert release.differences(built(), "1.2.3") == []
    assert not [name for name in built() if name.endswith("-any.whl")]


def test_a_wheel_may_do_with_an_older_libc():
    names = [name.replace("2_28_x86_64", "2_17_x86_64.manylinux2014_x86_64") for name in built()]
    assert release.differences(names, "1.2.3") == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("multicast_skt-1.2.3-py3-none-any.whl", "unexpected: multicast_skt-1.2.3-py3-none-any.whl"),
        ("multicast_skt-1.2.3-cp311-cp311-linux_x86_64.whl", "unexpected"),
        ("multicast_skt-1.2.4.tar.gz", "unexpected: multicast_skt-1.2.4.tar.gz"),
        ("notes.txt", "unexpected: notes.txt"),
        ("multicast_skt-1.2.3-cp311-cp311-manylinux_2_34_x86_64.whl", "the newest is to be (2, 28)"),
        ("multicast_skt-1.2.3-cp311-cp311-musllinux_1_3_x86_64.whl", "the newest is to be (1, 2)"),
        ("multicast_skt-1.2.3-cp311-cp311-manylinux_2_17_x86_64.whl", "2 of one kind"),
        ("multicast_skt-1.2.3-cp311-cp311-manylinux_2_17_x86_64.musllinux_1_2_x86_64.whl", "for manylinux"),
    ],
)
def test_a_file_too_many_is_named(name, fault):
    (wrong,) = release.differences([*built(), name], "1.2.3")
    assert fault in wrong


def test_each_missing_file_is_named():
    for name in built():
        (wrong,) = release.differences([each for each in built() if each != name], "1.2.3")
        assert wrong == f"missing: {release.described(name)}"


def test_a_folder_is_judged_with_the_tag_of_the_commit(tmp_path):
    version = release.package_version()
    for name in built():
        (tmp_path / name.replace("1.2.3", version)).touch()
    command = (sys.executable, "-P", ROOT / "release" / "expected.py", tmp_path)
    done = ran(*command, "--tag", f"v{version}")
    assert (done.returncode, done.stderr) == (0, "")
    done = ran(*command, "--tag", "v9.9.9")
    assert (done.returncode, done.stderr) == (1, f"the tag is v9.9.9, and the version {version}\n")
    (tmp_path / f"multicast_skt-{version}.tar.gz").unlink()
    done = ran(*command, "--tag", f"v{version}")
    assert (done.returncode, done.stderr) == (1, f"missing: multicast_skt-{version}.tar.gz\n")
