"""What a bug report needs: version, backend and why, Python, system, and what works there.

Owns that text. Must not fail where a part of it can't be found out.
"""

from __future__ import annotations

import platform
import sys

from .. import BACKEND, BACKEND_REASON, __file__, __version__, capabilities
from .output import Output


def run(*, as_json: bool) -> int:
    """Print it."""
    output = Output(as_json=as_json)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    try:
        works, error = {each.name: (bool(each), each.why) for each in capabilities()}, None
    except OSError as failure:  # the rest of the report is worth as much
        works, error = {}, f"what works here could not be tried: {failure}"
    if as_json:
        output.emit(
            {
                "version": __version__,
                "file": __file__,
                "backend": BACKEND,
                "backend_reason": BACKEND_REASON,
                "python": python,
                "executable": sys.executable,
                "system": platform.platform(),
                "capabilities": {name: {"works": there, "why": why} for name, (there, why) in works.items()},
                "error": error,
            }
        )
        return 0
    output.say(output.paint(f"multicast-skt {__version__}", "title") + f" ({__file__})")
    output.say(f"backend       {BACKEND}: {BACKEND_REASON}")
    output.say(f"python        {python} ({sys.executable})")
    output.say(f"system        {platform.platform()}")
    output.say()
    if error is not None:
        output.say(error)
    for name, (there, why) in works.items():
        verdict = output.paint("yes", "good") if there else output.paint("no ", "warning")
        output.say(f"{name:21}  {verdict}  {why}".rstrip())
    return 0
