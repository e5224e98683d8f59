"""Builds the native backend and what goes beside it into a distribution; all metadata is in pyproject.toml.

MULTICAST_BACKEND decides, with the words that it has at import: `auto` builds the extension where it can (Linux,
CPython) and goes on without it where that fails, `native` makes a failure fatal, `stdlib` builds none.
`--config-setting=--build-option=--py-limited-api=cp312` asks for the wheel that newer Pythons take as well (abi3).
"""

import ast
import datetime as dt
import gzip
import json
import os
import pathlib
import platform
import shlex
import sys
import sysconfig
import tarfile

from setuptools import Extension, setup
from setuptools import __version__ as setuptools_version
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).parent
NOTICE = """
multicast-skt: the native backend could not be built, so this installation receives through the standard library
(correct, and slow). It needs a C compiler and the headers of this Python; on Debian and Ubuntu: gcc and python3-dev.
Then install again, past pip's copy of what was built now, with a failure that is one:
    MULTICAST_BACKEND=native pip install --force-reinstall --no-cache-dir multicast-skt
"""


def version():
    """The version that multicast/__init__.py states: compiled in, so that a stale extension is recognised."""
    for node in ast.parse((HERE / "multicast" / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__":
            return ast.literal_eval(node.value)
    raise SystemExit("multicast/__init__.py states no __version__")


def source_date():
    """When the sources are of, by SOURCE_DATE_EPOCH (reproducible-builds.org): what is built has it as its time."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return None if epoch is None else int(epoch)


# The extension -----------------------------------------------------------------------------------------------------

# What a distribution's own packages are built with: a fault ends the process instead of running somebody's code.
# What fortified headers warn of, a write to a full eventfd, is meant: who is to wake up does already.
COMPILE = ["-Wno-unused-result", "-fvisibility=hidden", "-fstack-protector-strong", "-fstack-clash-protection"]
COMPILE += {
    "x86_64": ["-fcf-protection=full"],
    "aarch64": ["-mbranch-protection=standard"],
}.get(platform.machine(), [])
FORTIFY = ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
MACROS = [("MULTICAST_VERSION", f'"{version()}"')]
LINK = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]


def compile_arguments():
    asked = os.environ.get("CFLAGS")
    words = shlex.split(asked or "")
    arguments = list(COMPILE)
    if asked is not None and not any(word.startswith("-O") for word in words):
        arguments += ["-O3", "-DNDEBUG", "-fwrapv"]  # in newer setuptools CFLAGS replaces what Python was built with
    if not any(word.startswith("-g") for word in words):
        arguments += ["-g0"]  # Python's own flags ask for debug information: the most of a wheel, and with paths in it
    if not any(word.startswith("-fsanitize") for word in words):  # which replace the same functions
        arguments += FORTIFY
    return arguments


class BuildExt(build_ext):
    """Builds for the Pythons that a wheel is for; says what a failed build means before setuptools forgives it."""

    def finalize_options(self):
        _, asked = self.distribution.get_option_dict("bdist_wheel").get("py_limited_api", ("", ""))
        for extension in self.distribution.ext_modules or [] if asked else []:
            extension.py_limited_api = True
            extension.define_macros = [*MACROS, ("Py_LIMITED_API", limited_api(asked))]
        super().finalize_options()

    def build_extension(self, ext):
        # An earlier build, for other Pythons, may have been in the same folder: a wheel has one extension.
        built = pathlib.Path(self.build_lib, self.get_ext_filename(ext.name))
        for other in built.parent.glob("_skt.*.so"):
            if other.name != built.name:
                other.unlink()
        try:
            super().build_extension(ext)
        except Exception:
            # One that an earlier build left must not stand in for this one.
            for stale in (self.get_ext_fullpath(ext.name), HERE / self.get_ext_filename(ext.name)):
                pathlib.Path(stale).unlink(missing_ok=True)
            if ext.optional:
                print(NOTICE, file=sys.stderr, flush=True)
            raise


def limited_api(oldest):
    """The macro's value for the oldest Python that the extension is to run on: cp312 gives 0x030C0000."""
    if not (oldest.startswith("cp3") and oldest[3:].isdigit() and int(oldest[3:]) >= 12):
        # With the limited API of 3.11 a call costs twice as much, and before that there are no buffers in it.
        raise SystemExit(f"--py-limited-api={oldest}: the oldest that can be asked for is cp312")
    return f"0x03{int(oldest[3:]):02X}0000"


def extensions():
    choice = os.environ.get("MULTICAST_BACKEND") or "auto"
    if choice not in ("auto", "native", "stdlib"):
        raise SystemExit(f"MULTICAST_BACKEND={choice!r}: use auto, native or stdlib")
    possible = sys.platform == "linux" and sys.implementation.name == "cpython"
    if choice == "native" and not possible:
        raise SystemExit("MULTICAST_BACKEND=native: the native backend is for CPython on Linux")
    if choice == "stdlib" or not possible:
        return []
    # Without Cython setuptools would look for a ready-made _skt.c and, the extension being optional, forgive its
    # absence: a build without the native backend that nobody asked for.
    import Cython  # noqa: F401

    return [
        Extension(
            "multicast._skt",
            ["multicast/_skt.pyx"],
            depends=["multicast/_compat.h", *sorted(map(str, pathlib.Path("multicast").glob("*.px[di]")))],
            define_macros=MACROS,
            extra_compile_args=compile_arguments(),
            extra_link_args=LINK,
            optional=choice != "native",
        )
    ]


# The wheel ---------------------------------------------------------------------------------------------------------


def bill_of_materials(compiled):
    """What a wheel is made of, in CycloneDX: for who has to list what runs on a host (PEP 770)."""
    name = "multicast-skt"
    own = f"pkg:pypi/{name}@{version()}"
    build = [{"type": "application", "name": "setuptools", "version": setuptools_version}]
    within = []
    if compiled:
        import Cython

        within.append(
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/cython@{Cython.__version__}",
                "name": "Cython",
                "version": Cython.__version__,
                "description": "its run-time support is compiled into multicast._skt",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": f"pkg:pypi/cython@{Cython.__version__}",
            }
        )
        build.append({"type": "application", "name": "Cython", "version": Cython.__version__})
    metadata = {
        "lifecycles": [{"phase": "build"}],
        "tools": {"components": build},
        "component": {
            "type": "library",
            "bom-ref": own,
            "name": name,
            "version": version(),
            "licenses": [{"license": {"id": "MIT"}}],
            "purl": own,
        },
    }
    if source_date() is not None:
        metadata["timestamp"] = dt.datetime.fromtimestamp(source_date(), dt.UTC).isoformat()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": within,
        "dependencies": [{"ref": own, "dependsOn": [each["bom-ref"] for each in within]}]
        + [{"ref": each["bom-ref"]} for each in within],
        "compositions": [{"aggregate": "complete", "assemblies": [own], "dependencies": [own]}],
    }


class BdistWheel(bdist_wheel):
    """A wheel with its bill of materials, and the same bytes from the same sources."""

    def finalize_options(self):
        # A wheel for any platform would be taken on Linux before the sources are: receiving slowly, and nobody told.
        if not self.distribution.has_ext_modules():
            self.plat_name = self.plat_name or sysconfig.get_platform()
        super().finalize_options()

    def write_wheelfile(self, wheelfile_base, *arguments, **options):
        super().write_wheelfile(wheelfile_base, *arguments, **options)
        sboms = pathlib.Path(wheelfile_base, "sboms")
        sboms.mkdir()
        text = json.dumps(bill_of_materials(self.distribution.has_ext_modules()), indent=2)
        (sboms / "multicast-skt.cdx.json").write_text(text + "\n", "utf-8")
        for each in pathlib.Path(self.bdist_dir).rglob("*"):
            if each.is_file():
                each.chmod(0o755 if each.suffix == ".so" else 0o644)


# The source distribution -------------------------------------------------------------------------------------------


class Sdist(sdist):
    """With SOURCE_DATE_EPOCH, the same bytes from the same sources; as a tar.gz, which is all that is published."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **names):
        epoch = source_date()
        if epoch is None:
            return super().make_archive(base_name, format, root_dir, base_dir, **names)
        if format != "gztar":
            raise SystemExit(f"SOURCE_DATE_EPOCH: there is no reproducible {format} here, only gztar")

        def anonymous(entry):
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = epoch
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            return entry

        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, epoch) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=anonymous)  # a folder's entries come sorted
        return path


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel, "sdist": Sdist})
