"""What of this host's firewall could drop a feed: nftables, and iptables of both kinds.

Owns running their programs. Must not change a rule, nor have the kernel load a firewall that is not in use.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from . import iptables, nftables
from .chains import certain_first, obstacles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .chains import Obstacle, Packet


class Rulesets:
    """The rules in force when this was made. readable: whether at least one firewall could be asked.

    - nft: what `nft -j list ruleset` printed; None where there is none, or it may not tell
    - saved: what iptables-nft-save, ip6tables-legacy-save and the like printed, by the program's name without "-save"
    """

    def __init__(self, nft: dict[str, Any] | None, saved: Mapping[str, str]) -> None:
        self.nft = nft
        self.saved = saved
        self.readable: bool = nft is not None or bool(self.saved)

    @classmethod
    def read(cls, *, ipv6: bool) -> Rulesets:
        """Ask the system."""
        nft = None
        with contextlib.suppress(ValueError, RecursionError):
            nft = json.loads(_printed("nft", "-j", "list", "ruleset") or "null")
        if not isinstance(nft, dict) or not isinstance(nft.get("nftables"), list):
            nft = None
        prefix = "ip6" if ipv6 else "ip"
        programs = [f"{prefix}tables-nft", *([f"{prefix}tables-legacy"] if _in_use(prefix) else [])]
        printed = {program: _printed(f"{program}-save", "-c") for program in programs}
        return cls(nft, {program: text for program, text in printed.items() if text is not None})

    def obstacles(self, packets: Iterable[Packet]) -> list[Obstacle]:
        """Return what could drop any of these, the certain ones first."""
        found: list[Obstacle] = []
        for packet in packets:
            for program, saved in self.saved.items():
                found += obstacles(iptables.chains(saved, packet, program))
            if self.nft is not None:
                found += obstacles(nftables.chains(self.nft, packet))
        return certain_first(found)


def _in_use(prefix: str) -> bool:
    """Whether iptables-legacy has tables here. To ask the program would load its modules into the kernel."""
    try:
        return bool(Path(f"/proc/net/{prefix}_tables_names").read_text("ascii").strip())
    except OSError:
        return False


def _printed(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")  # a comment may be anything
