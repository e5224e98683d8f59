"""Whether the type information is complete and true: what `python3 dev.py check` runs beside mypy on the sources.

Looks at the package as users get it, in build/types: its types are those of the built extension (stubtest), none is
unknown (pyright), and a program that uses it has them (tests/typed_consumer.py). Then proves that both would have told.
Of the extension stubtest looks at the classes, as the door has them; functions it passes over, since _skt.pyi has them
from another module: tests/test_parity.py compares those.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TYPES = ROOT / "build" / "types"
CONSUMER = ROOT / "tests" / "typed_consumer.py"
ALLOWED = ROOT / "release" / "stubtest-allowlist.txt"

STUBTEST = ("mypy.stubtest", "multicast", "--concise", "--allowlist", ALLOWED)
COMPLETE = ("pyright", "--pythonpath", sys.executable, "--verifytypes", "multicast", "--ignoreexternal")
CONSUMING = (
    ("mypy", "--strict", "--cache-dir", ROOT / "build" / "types_cache", CONSUMER),
    ("pyright", "--pythonpath", sys.executable, CONSUMER),
)
# File, what stands there, what is planted instead, which check has to name what.
PLANTED = (
    ("_skt_py.py", "recv_batch_async(self, timeout:", "recv_batch_async(self, *, timeout:", STUBTEST, "skt.Receiver."),
    ("skt.py", "def endSocket(sock: object = None) -> None:", "def endSocket(sock=None):", COMPLETE, "endSocket"),
)


def installed():
    """Lay the package down as a wheel has it, with the extension that is built; return whether there is one."""
    shutil.rmtree(TYPES, ignore_errors=True)
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(TYPES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"types: the package could not be laid down:\n{done.stdout}{done.stderr}")
    find = "import multicast; print(multicast.skt._backend.__file__ if multicast.BACKEND == 'native' else '')"
    extension = subprocess.run(
        [sys.executable, "-P", "-c", find], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    if extension:
        shutil.copy2(extension, TYPES / "multicast")
    return bool(extension)


def ran(module, *arguments):
    """Run a tool that sees the package in build/types, and no other."""
    environment = os.environ | {"PYTHONPATH": str(TYPES), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=TYPES, env=environment, capture_output=True, text=True, check=False)


def prove(name, there, planted, check, report):
    """Show that a check tells: what is planted it has to report by its name."""
    file = TYPES / "multicast" / name
    text = file.read_text("utf-8")
    if text.count(there) != 1:
        raise SystemExit(f"types: {name} has no place to plant in: {there}")
    file.write_text(text.replace(there, planted), "utf-8")
    done = ran(*check)
    file.write_text(text, "utf-8")
    if done.returncode == 0 or report not in done.stdout:
        raise SystemExit(f"types: {planted} was planted, and not reported by {check[0]}:\n{done.stdout}{done.stderr}")
    print(f"types: {planted} planted, and reported by {check[0]}")


def main():
    """Check all; return how many checks failed."""
    checks = [COMPLETE, *CONSUMING]
    if installed():
        checks.insert(0, STUBTEST)
    else:
        print("types: no extension was built here; stubtest, which compares it with its types, has nothing to look at")
    failed = 0
    for check in checks:
        done = ran(*check)
        if done.returncode:
            print(f"types: {check[0]}:\n{done.stdout}{done.stderr}")
        failed += done.returncode != 0
    if not failed:
        for each in PLANTED:
            if each[3] in checks:
                prove(*each)
        print("types: complete, and true of the extension" if STUBTEST in checks else "types: complete")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
