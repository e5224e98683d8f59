"""What a wheel has to hold and what its name may promise.

Owns what check-wheel-contents (its settings are in pyproject.toml) does not know of this project. Must take a wheel as
an installer does: from the archive alone.
"""

from __future__ import annotations

import email
import json
import re
import zipfile
from pathlib import Path, PurePosixPath

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# What a wheel's name says: PEP 427, with the several platforms that auditwheel writes into one (PEP 425).
NAME = re.compile(r"(?P<name>\w+)-(?P<version>[^-]+)-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$")
MANYLINUX, MUSLLINUX = re.compile(r"manylinux_2_(\d+)_\w+$"), re.compile(r"musllinux_1_[12]_\w+$")  # PEP 600, 656
NEWEST_GLIBC = 28  # of RHEL 8 and its kin, the oldest system that the wheels are for
ALIASES = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
PACKAGED = {".py", ".typed", ".pyi"}  # of the sources; beside them the extension
COMPRESSED_AT_MOST = 700_000  # bytes: a wheel with debug information in it has over two million


def wheel_faults(path: Path, sources: set[str]) -> list[str]:
    """What is wrong with what a wheel holds, beside what check-wheel-contents finds; nothing, where the list is empty.

    - sources: the files of the package that the sources have, as `multicast/skt.py`
    """
    parts = NAME.match(path.name)
    if parts is None:
        return [f"{path.name} is no wheel's name"]
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("multicast/") and name[-1] != "/"]
        info = f"{parts['name']}-{parts['version']}.dist-info"
        wanted = {name for name in sources if PurePosixPath(name).suffix in PACKAGED}
        found = [f"{name} is missing" for name in sorted(wanted - set(names))]
        native = [name for name in names if name.endswith(".so")]
        found += [f"{name} is not of the sources" for name in sorted(set(names) - wanted - set(native))]
        if len(native) != (parts["abi"] != "none"):
            found.append(f"{len(native)} extensions in a wheel tagged {parts['abi']}")
        found += _bill_faults(archive, info, bool(native))
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        if needed := [each for each in metadata.get_all("Requires-Dist") or [] if "extra ==" not in each]:
            found.append(f"needs {', '.join(needed)} at run time")
    if path.stat().st_size > COMPRESSED_AT_MOST:
        found.append(f"{path.stat().st_size:,} bytes, more than {COMPRESSED_AT_MOST:,}")
    return found


def _bill_faults(archive: zipfile.ZipFile, info: str, native: bool) -> list[str]:
    name = f"{info}/sboms/multicast-skt.cdx.json"
    if name not in archive.namelist():
        return ["no bill of materials (PEP 770)"]
    text = archive.read(name).decode()
    if (invalid := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        return [f"its bill of materials is no CycloneDX: {str(invalid).splitlines()[0]}"]
    within = {each["name"] for each in json.loads(text).get("components", [])}
    wanted = {"Cython"} if native else set()
    return [] if within == wanted else [f"its bill of materials lists {sorted(within)}, not {sorted(wanted)}"]


def platform_faults(name: str) -> list[str]:
    """What is wrong with the platforms in a wheel's name: each has to be for glibc 2.28 or musl 1.2, or before."""
    parts = NAME.match(name)
    found = []
    for platform in parts["platform"].split(".") if parts else ["none"]:
        if MUSLLINUX.match(platform):
            continue
        numbered = MANYLINUX.match(platform)
        glibc = int(numbered[1]) if numbered else ALIASES.get(platform.split("_")[0])
        if glibc is None:
            found.append(f"{platform} is neither manylinux nor musllinux")
        elif glibc > NEWEST_GLIBC:
            found.append(f"{platform} needs a newer glibc than 2.{NEWEST_GLIBC}")
    return found
