#!/usr/bin/env python3
"""Everything a developer types: python3 dev.py demo | test | fuzz | check | docs | bench | wheels | pictures.

Owns `.venv`, made once with the standard library and pip alone, and kept up to date: what is compiled is built again
when its source changes. Must run on any Python from 3.11 on, also one whose system manages its packages.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import venv

if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older one learns it
    raise SystemExit("dev.py: needs Python 3.11 or later")

import tomllib

ROOT = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "dev.json"
BUILD_LOG = VENV / "build.log"
SANITIZED = ROOT / "build" / "sanitized"
DOCS = ROOT / "build" / "docs"


def say(text):
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def run(command, **options):
    """Run a command of ours; end with its exit code if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, check=False, **options)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done


def code_of(command, **options):
    """Run a command that people stop by Ctrl-C, and return its exit code.

    It gets that, too, and ends in order: subprocess.run would kill it 0.25 s later, with its own processes left over. A
    second Ctrl-C does kill it.
    """
    presses = 0

    def pressed(*_):
        nonlocal presses
        presses += 1
        if presses > 1:
            process.kill()

    process = subprocess.Popen([str(word) for word in command], **options)
    before = signal.signal(signal.SIGINT, pressed)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if presses:
        raise KeyboardInterrupt
    return code


# The environment ---------------------------------------------------------------------------------------------------


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def digest():
    """A fingerprint of all that the compiled part and the installation come from."""
    sources = [ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "multicast" / "__init__.py"]
    sources += sorted(each for each in (ROOT / "multicast").iterdir() if each.suffix in (".pyx", ".pxi", ".pxd", ".h"))
    found = hashlib.sha256(repr((sys.version, sys.executable, os.environ.get("MULTICAST_BACKEND"))).encode())
    for source in sources:
        found.update(source.read_bytes())
    return found.hexdigest()


def pip(*arguments, **options):
    """Install into .venv with the pip that this Python has: a virtual environment of Debian's may come without one."""
    own = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    outer = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    if not (own or outer):
        raise SystemExit("dev.py: this Python has neither pip nor ensurepip; on Debian: apt-get install python3-pip")
    command = [PYTHON, "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", PYTHON]
    return subprocess.run(
        [str(word) for word in (*command, "install", "--disable-pip-version-check", *arguments)],
        cwd=ROOT,
        check=False,
        **options,
    )


def make_venv():
    say(f"making .venv for Python {sys.version.split()[0]}")
    try:
        import ensurepip
    except ImportError:
        ensurepip = None  # Debian without python3-venv
    outer = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    venv.create(VENV, clear=True, symlinks=os.name != "nt", with_pip=not outer and ensurepip is not None)


def set_up(extra=None):
    """Bring .venv up to what the checkout and the command need; nothing to do costs a few milliseconds."""
    try:
        stamp = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        stamp = {}
    version = f"{sys.version} {sys.executable}"
    if stamp.get("python") != version or not PYTHON.exists():
        make_venv()
        stamp = {"python": version}
    wanted = digest()
    if stamp.get("digest") != wanted:
        install(project()["build-system"]["requires"], "what the build needs")
        build()
        stamp["digest"] = wanted
    if extra:
        requirements = project()["project"]["optional-dependencies"][extra]
        installed = stamp.setdefault("installed", {})
        if installed.get(extra) != requirements:  # also when another one came in since
            install(requirements, f"what `{extra}` needs")
            installed[extra] = requirements
    STAMP.write_text(json.dumps(stamp), "utf-8")


def install(requirements, what):
    say(f"installing {what}: {', '.join(requirements)}")
    if pip("--quiet", *requirements).returncode:
        raise SystemExit(f"dev.py: pip could not install {what}; it needs the package index, once")


def build():
    say("building the package")
    with BUILD_LOG.open("w", encoding="utf-8") as log:
        failed = pip("-v", "--no-build-isolation", "--no-deps", "--editable", ".", stdout=log, stderr=log).returncode
    if failed:
        sys.stderr.write(BUILD_LOG.read_text("utf-8"))
        raise SystemExit(f"dev.py: the build failed; the log is above and in {BUILD_LOG.relative_to(ROOT)}")
    show = "import multicast; print(multicast.BACKEND, '-', multicast.BACKEND_REASON)"
    found = run([PYTHON, "-P", "-c", show], stdout=subprocess.PIPE, text=True).stdout.strip()
    say(f"backend {found}")
    if sys.platform == "linux" and found.startswith("stdlib") and os.environ.get("MULTICAST_BACKEND") != "stdlib":
        say(
            "the native backend was not built. It needs a C compiler and the headers of this Python (on Debian and "
            f"Ubuntu: gcc and python3-dev); {BUILD_LOG.relative_to(ROOT)} says what was missing"
        )


# The sanitized build -----------------------------------------------------------------------------------------------

SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1 -g"


def sanitized_environment(variant, *macros):
    """Build the extension with AddressSanitizer and UBSan beside the ordinary one: how to run Python with it."""
    library = SANITIZED / variant
    building = os.environ | {
        "CFLAGS": " ".join([SANITIZERS, *(f"-D{macro}" for macro in macros)]),
        "LDFLAGS": SANITIZERS,
        "MULTICAST_BACKEND": "native",
    }
    say(f"building with AddressSanitizer and UBSan: {variant}")
    shutil.rmtree(library, ignore_errors=True)
    places = ["--build-base", SANITIZED / f"{variant}-objects", "--build-lib", library]
    run([PYTHON, "setup.py", "--quiet", "build", *places, "build_ext", "--force"], env=building)
    return watched() | {"PYTHONPATH": str(library), "MULTICAST_TEST_LIBRARY": str(library)}


def watched():
    """How to run Python so that the sanitizers watch what is built with them."""
    compiler = os.environ.get("CC", "gcc")
    runtime = run([compiler, "-print-file-name=libasan.so"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return os.environ | {
        "PYTHONSAFEPATH": "1",
        "LD_PRELOAD": runtime,
        "PYTHONMALLOC": "malloc",  # so that the sanitizer sees Python's own blocks, too
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # CPython leaks at exit by design
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


# Files of tests that have no native code to watch.
NOT_SANITIZED = """
backend bench bench_live benchmarks capabilities capacity capture cli_doctor cli_doctor_firewall
cli_doctor_hosts cli_doctor_machine cli_interfaces cli_interop cli_listen cli_listen_failing cli_send command
crosstalk docs docs_commands error_queue ethtool examples feed feeds filter filter_hosts filter_programs
free_threading guard hardening hardware healing_load import_quiet interop other_package pacing pictures
proc_net readme reference release reports reports_filters security sequence setup ssm_proof tracking tuning
watch workflows
"""
PLANTED = {"MULTICAST_PLANT_OVERFLOW": "heap-buffer-overflow", "MULTICAST_PLANT_UNDEFINED": "shift exponent"}
RECEIVE_ONE = """
import multicast, socket
near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
far.send(b"planted")
print(bytes(multicast.Receiver(near).recv_batch()[0]))
"""


def prove_sanitizers():
    """Show that each sanitizer watches the extension: a fault planted on the receive path has to end the process."""
    for macro, report in PLANTED.items():
        environment = sanitized_environment(macro.lower(), macro)
        done = subprocess.run(
            [PYTHON, "-c", RECEIVE_ONE], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
        )
        if done.returncode == 0 or report not in done.stderr:
            raise SystemExit(f"dev.py: {macro} was planted and not reported:\n{done.stdout}{done.stderr}")
        say(f"{macro}: planted, and reported as {report}")


# The fuzzer --------------------------------------------------------------------------------------------------------

WALKING = ROOT / "tests" / "walking.py"
FUZZER_PLANTED = {
    "WALKER_READS_ON": "ERROR: AddressSanitizer",
    "MULTICAST_PLANT_UNDEFINED": "shift exponent",
    "WALKER_LIES": "AssertionError",
}


def built_walker(folder, *macros):
    """Build tests/walker.pyx with the sanitizers: the extension."""
    environment = os.environ | {"CFLAGS": SANITIZERS, "LDFLAGS": SANITIZERS}
    command = [PYTHON, WALKING, "build", folder, *macros]
    return run(command, env=environment, stdout=subprocess.PIPE, text=True).stdout.strip()


def run_walker(extension, seed, cases, first, **options):
    """Run cases in a process that the sanitizers watch: it, and the number of the case that it was at."""
    at = pathlib.Path(extension).with_name("case")
    at.write_bytes(bytes(8))
    command = [str(word) for word in (PYTHON, WALKING, "run", extension, seed, cases, first, at)]
    options |= {"env": watched(), "cwd": ROOT, "text": True, "timeout": 60 + cases // 20_000}  # 15 times what it takes
    try:
        done = subprocess.run(command, check=False, **options)
    except subprocess.TimeoutExpired as error:
        done = subprocess.CompletedProcess(command, 1, error.stdout, f"a case that does not end: {error}")
        say(done.stderr)
    return done, int.from_bytes(at.read_bytes(), sys.byteorder)


def prove_fuzzer(folder):
    """Show that the fuzzer finds a fault, be it one that a sanitizer reports or one that it judges by itself."""
    for macro, report in FUZZER_PLANTED.items():
        done, case = run_walker(built_walker(folder, macro), 1, 10_000, 0, capture_output=True)
        if done.returncode == 0 or report not in done.stderr:
            raise SystemExit(f"dev.py: {macro} was planted and not reported:\n{done.stdout}{done.stderr}")
        say(f"{macro}: planted, and reported in case {case} as {report}")


# The commands ------------------------------------------------------------------------------------------------------


def demo(arguments):
    set_up()
    return code_of([PYTHON, "-P", "-m", "multicast", "demo", *arguments])


# Some tests need the machine to themselves. Of all others a process has a file after the other: what is made for a file
# is made once, and its tests come in their order. A process that crashed is not replaced: pytest-xdist, 3.8, may then
# wait for ever. Its test has failed, and the others go on.
ALONE = ("-m", "alone")
SIDE_BY_SIDE = ("-m", "not alone", "--numprocesses", "2", "--dist", "loadfile", "--max-worker-restart", "0")

# `--parallel-threads N` has N threads run a test at the same time (pytest-run-parallel), for Pythons without a GIL: one
# that makes for itself all that it uses. What is made once for a test would be the threads' together.
BY_THREADS = ["arguments", "arguments_values", "batches", "columns", "feed", "sequence", "sending"]
MADE_FOR_A_TEST = ["feed", "opened", "opened_native", "monkeypatch"]


def test(arguments):
    sanitize = "--sanitize" in arguments
    arguments = [each for each in arguments if each != "--sanitize"]
    set_up("test")
    if "--parallel-threads" in arguments:
        set_up("threads")
        arguments = [*arguments, "-o", "thread_unsafe_fixtures=" + "\n".join(MADE_FOR_A_TEST)]
        arguments += [f"tests/test_{name}.py" for name in BY_THREADS]
    elif sys.platform != "linux" and not arguments:  # most tests look at what Linux does
        return code_of([PYTHON, ROOT / "tests" / "installed.py"], cwd=ROOT)
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    if sanitize:
        prove_sanitizers()
        # The other backend has nothing that they could watch, and neither have tests of what is Python or the kernel's.
        environment = sanitized_environment("suite") | {"MULTICAST_BACKEND": "native"}
        # Into a file: what goes to stderr, pytest has taken for the test's and loses with the process.
        for options in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            environment[options] += f":log_path={SANITIZED / 'report'}"
    if arguments:  # as pytest does it: in one process, which may be stopped in
        return pytest(environment, *arguments)
    ignored = [f"--ignore={ROOT / 'tests' / f'test_{name}.py'}" for name in NOT_SANITIZED.split() if sanitize]
    failed = {
        part: code
        for part, more in (("alone", ALONE), ("side by side", SIDE_BY_SIDE))
        if (code := pytest(environment, *ignored, *more))
    }
    if failed:
        say(f"failed, see above: the tests that run {' and those that run '.join(failed)}")
    return max(failed.values(), default=0)


def pytest(environment, *arguments):
    code = code_of([PYTHON, "-m", "pytest", *arguments], cwd=ROOT, env=environment)
    for report in SANITIZED.glob("report.*"):
        sys.stderr.write(report.read_text("utf-8", "replace"))
        report.unlink()
        code = code or 1  # a test may have expected that a process fails
    return code


def fuzz(arguments):
    parser = argparse.ArgumentParser(prog="dev.py fuzz")
    parser.add_argument("--cases", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="left out: a new one")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    given = parser.parse_args(arguments)
    set_up()
    folder = SANITIZED / "walker"
    shutil.rmtree(folder, ignore_errors=True)
    say("building the fuzzer with AddressSanitizer and UBSan")
    prove_fuzzer(folder)
    extension = built_walker(folder)
    say(f"seed {given.seed}: {given.cases} cases from {given.first}")
    done, case = run_walker(extension, given.seed, given.cases, given.first, stdout=subprocess.PIPE)
    if done.returncode:
        say(f"this is case {case}, again: python3 dev.py fuzz --seed {given.seed} --first {case} --cases 1")
        return done.returncode
    found = json.loads(done.stdout)
    print(f"seed {given.seed}, {given.cases} cases, {found['seconds']} s, nothing found. How often each was seen:")
    words = [f"{name} {count}" for name, count in found["seen"].items()]
    print(textwrap.fill(", ".join(words), 118, break_on_hyphens=False))
    return 0


def check(arguments):
    if arguments:
        raise SystemExit("dev.py: check takes no arguments")
    set_up("check")
    tools = PYTHON.parent
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    failed = []
    workflows = sorted(str(each.relative_to(ROOT)) for each in (ROOT / ".github" / "workflows").glob("*.yml"))
    of_workflows = (
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows],
        ["check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"],
        ["zizmor", "--offline", "--quiet", "--persona", "pedantic", ".github"],
    )
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["cython-lint", "multicast", "tests"],
        ["mypy"],
        ["python", "release/typed.py"],
        ["validate-pyproject", "pyproject.toml"],
        *(of_workflows if workflows else ()),  # a source distribution has none
    ):
        say(" ".join(command))
        if subprocess.run([tools / command[0], *command[1:]], cwd=ROOT, env=environment, check=False).returncode:
            failed.append(" ".join(command))
    if failed:
        say(f"failed: {', '.join(failed)}")
    return len(failed)


def docs(arguments):
    if arguments:
        raise SystemExit("dev.py: docs takes no arguments")
    set_up("docs")
    shutil.rmtree(DOCS, ignore_errors=True)
    command = [PYTHON, "-P", "-m", "sphinx", "--builder", "html", "--fresh-env", "--quiet"]
    # A warning fails the build, after all of them were shown; so does a name in backticks that leads nowhere.
    command += ["--fail-on-warning", "--nitpicky", ROOT / "docs", DOCS]
    failed = subprocess.run([str(word) for word in command], cwd=ROOT, check=False).returncode
    if not failed:
        say(f"the documentation is in {(DOCS / 'index.html').relative_to(ROOT)}")
    return failed


def bench(arguments):
    set_up("bench")
    if any(word.partition("=")[0] == "--plots" for word in arguments):
        set_up("plots")
    return code_of([PYTHON, "-P", ROOT / "benchmarks", *arguments])


def wheels(arguments):
    set_up("wheels")
    return code_of([PYTHON, ROOT / "release" / "wheels.py", *arguments], cwd=ROOT)


# The README's pictures, by the word that makes each. Figures in README and docs/performance.md are of the plot's own
# run: who commits a new plot writes those anew.
PICTURES = {"listen": "docs/pictures/listen.svg", "benchmark": "docs/plots/drain.svg"}


def pictures(arguments):
    parser = argparse.ArgumentParser(prog="dev.py pictures")
    parser.add_argument("picture", nargs="*", metavar="PICTURE", help=f"of {', '.join(PICTURES)}; all if none is named")
    wanted = parser.parse_args(arguments).picture or list(PICTURES)
    if unknown := set(wanted) - set(PICTURES):
        parser.error(f"no picture {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    if "listen" in wanted:
        set_up("cli")
        say("listening for a minute")
        run([PYTHON, "-P", (ROOT / PICTURES["listen"]).with_suffix(".py")])
    if "benchmark" in wanted:
        drawn = ROOT / PICTURES["benchmark"]
        return bench([drawn.stem, "--plots", drawn.parent])
    return 0


COMMANDS = {
    "demo": (demo, "a synthetic feed on the loopback interface, received at full rate, 10 s"),
    "test": (
        test,
        "every test on both backends; --sanitize: with AddressSanitizer and UBSan;\n"
        "           --parallel-threads N: some of them, each by N threads at a time; the rest is pytest's",
    ),
    "fuzz": (
        fuzz,
        "ten million hostile control messages and batches, for what reads and sorts them, under the sanitizers;\n"
        "           half a minute; --cases N --seed N --first N",
    ),
    "check": (check, "lint and types: ruff, cython-lint, mypy, stubtest, pyright; of the workflows: schemas, zizmor"),
    "docs": (docs, "the documentation, as pages for a browser, in build/docs; a warning is an error"),
    "bench": (
        bench,
        "this package beside bare C, the socket module and others, and what is to be shown;\n"
        "           scenarios by name, --quick or --full, --json FILE, --plots FOLDER",
    ),
    "wheels": (
        wheels,
        "the source distribution, and wheels from it for each CPython here, looked at and tried as users\n"
        "           get them; in dist; --python PATH, as often as wanted, --at-once N, --look FOLDER",
    ),
    "pictures": (
        pictures,
        "the README's pictures: listen, after a minute of feeds on the loopback interface, and\n"
        "           benchmark, what `bench drain` measures; one by name, or both",
    ),
}


def main():
    parser = argparse.ArgumentParser(
        prog="dev.py",
        description="Sets up .venv on first use, then runs a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:8} {text}" for name, (_, text) in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the command")
    given = parser.parse_args()
    try:
        raise SystemExit(COMMANDS[given.command][0](given.arguments))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
