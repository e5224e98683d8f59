"""A wheel as its users get it: in an environment of its own, away from the sources.

Owns what it has to do there. Must not see the checkout: what is needed of it, the tests, is copied.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

from interpreters import Environment, Failed, Interpreter

ROOT = Path(__file__).resolve().parent.parent
NATIVE = {"MULTICAST_BACKEND": "native"}
COPIED = ("tests", "benchmarks", "pyproject.toml")  # benchmarks: tests import from them
SHOW = "import multicast; print(multicast.BACKEND); print(multicast.BACKEND_REASON); print(multicast.skt.__file__)"


@dataclasses.dataclass
class Tried:
    """What came of a trial."""

    backend: str
    passed: dict[str, int]  # by backend


def installed_alone(wheel: Path, interpreter: Interpreter, folder: Path) -> Environment:
    """An environment with the wheel and nothing else, from no index: it has to need nothing."""
    environment = Environment(interpreter, folder / "environment")
    environment.pip("install", "--no-index", wheel)
    return environment


def shown(environment: Environment, away: Path, **options) -> tuple[str, str]:
    """The backend that an environment's package chooses, and why; its files have to be the environment's own."""
    backend, reason, file = environment.run("-I", "-c", SHOW, cwd=away, **options).stdout.splitlines()
    if environment.folder not in Path(file).parents:
        raise Failed(f"{file} was imported, not one in {environment.folder}")
    return backend, reason


def try_alone(environment: Environment, away: Path, *, native: bool = True) -> str:
    """Use the package where it is alone, then without its extension, then with half of it; the backend in force.

    Leaves the environment's extension broken. Raises Failed.
    """
    backend, reason = shown(environment, away)
    if backend != ("native" if native else "stdlib"):
        raise Failed(f"{environment.folder}: the backend is {backend}: {reason}")
    demo(environment, away, backend)
    if not native:
        return backend
    extension = next(environment.folder.glob("lib*/python3*/site-packages/multicast/_skt.*.so"))
    whole = extension.read_bytes()

    extension.unlink()
    without, reason = shown(environment, away)
    if without != "stdlib" or "no extension multicast._skt" not in reason:
        raise Failed(f"without its extension the backend is {without}: {reason}")
    demo(environment, away, without)
    refused(environment, away, "no extension multicast._skt", MULTICAST_BACKEND="native")

    extension.write_bytes(whole[: len(whole) // 2])
    refused(environment, away, extension.name)
    refused(environment, away, extension.name, MULTICAST_BACKEND="native")
    return backend


def demo(environment: Environment, away: Path, backend: str) -> None:
    """Run the demo for a second; its account of every datagram has to close. Raises Failed."""
    said = environment.run("-I", "-m", "multicast", "demo", "--seconds", "1", cwd=away).stdout
    if f"{backend} backend" not in said or f"ledger, {backend}: " not in said:
        raise Failed(f"the demo did not do what it is for:\n{said}")


def refused(environment: Environment, away: Path, why: str, **variables: str) -> None:
    """Import the package, which has to fail by an ImportError that says why. Raises Failed."""
    done = environment.run("-c", SHOW, cwd=away, check=False, environment={"PYTHONSAFEPATH": "1"} | variables)
    last = done.stderr.rstrip().rpartition("\n")[2]
    if not done.returncode or not last.startswith("ImportError: ") or why not in last:
        raise Failed(
            f"import multicast has to fail, for {why}; exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )


def tested(environment: Environment, wheel: Path, away: Path) -> dict[str, int]:
    """Run the tests that every wheel has to pass, from a copy: how many passed, by backend. Raises Failed."""
    for name in COPIED:
        source, target = ROOT / name, away / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    environment.pip("install", "--quiet", "--force-reinstall", f"{wheel}[wheel-test]")
    variables = {"PYTHONSAFEPATH": "1", "MULTICAST_TEST_LIBRARY": str(environment.folder)}
    said = environment.run("tests/installed.py", cwd=away, environment=variables).stdout
    found = dict(re.findall(r"^installed: (\w+): (\d+) passed$", said, re.MULTILINE))
    return {backend: int(count) for backend, count in found.items()}


def try_wheel(wheel: Path, interpreter: Interpreter, folder: Path) -> Tried:
    """Install a wheel away from everything and use it. Raises Failed."""
    away = folder / "away"
    away.mkdir(parents=True)
    environment = installed_alone(wheel, interpreter, folder)
    backend = try_alone(environment, away)
    return Tried(backend, tested(environment, wheel, away))


def try_sdist(sdist: Path, interpreter: Interpreter, requirements: list[str], folder: Path) -> list[str]:
    """Install from the source distribution where something is missing: what came of it, a line each. Raises Failed."""
    away = folder / "away"
    away.mkdir(parents=True)
    environment = Environment(interpreter, folder / "environment")
    environment.pip("install", "--quiet", *requirements)
    install = [
        "install",
        "--verbose",
        "--force-reinstall",
        "--no-cache-dir",
        "--no-build-isolation",
        "--no-index",
        sdist,
    ]

    # A network namespace of its own, with no interface up: a build that asks a network for something fails.
    environment.pip(*install, inside=("unshare", "--map-root-user", "--net"), environment=NATIVE)
    backend, _ = shown(environment, away)
    if backend != "native":
        raise Failed(f"built without a network, the backend is {backend}")

    nothing = {"PATH": str(folder / "nothing")}
    said = environment.pip(*install, environment=nothing).stderr  # where pip shows what a build says
    backend, reason = shown(environment, away)
    if backend != "stdlib" or "the native backend could not be built" not in said:
        raise Failed(f"built without a compiler, the backend is {backend}, and this was said:\n{said}")
    demo(environment, away, backend)
    if environment.pip(*install, check=False, environment=nothing | NATIVE).returncode == 0:
        raise Failed("MULTICAST_BACKEND=native was built without a compiler")

    environment.pip("uninstall", "--quiet", "--yes", "Cython")
    if environment.pip(*install, check=False).returncode == 0:
        raise Failed("without Cython a build went on, as if nobody had asked for the native backend")
    return [
        "without a network: native",
        f"without a compiler: stdlib, with a notice; {reason}",
        "without a compiler, MULTICAST_BACKEND=native: refused",
        "without Cython: refused",
    ]
