"""`multicast doctor` on a machine whose kernel grants too small a receive buffer, and when it no longer does."""

from __future__ import annotations

import json
import shlex
import sys

import user_mode_linux
from net import python_environment

import multicast as package

FEED = "239.77.0.1:5001%lo"


def test_a_tiny_rmem_max_is_named_first_and_what_it_says_to_type_mends_it(tmp_path):
    python = f"{shlex.quote(sys.executable)} -P -m multicast"
    ask = f"{python} doctor {FEED} -c 1 --seconds 20 --json 2>/dev/null | tail -n 1"
    lines = user_mode_linux.run(
        tmp_path,
        f"""
        {python} send {FEED} --rate 100 --count 4000 >/dev/null &
        {ask}
        echo 4096 > /proc/sys/net/core/rmem_max
        found=$({ask})
        echo "$found"
        eval "$(echo "$found" | sed 's/.*"next": *"\\([^"]*\\)".*/\\1/')" >/dev/null
        {ask}
        kill $!
        """,
        python_environment(package),
    )
    before, tiny, mended = map(json.loads, lines)
    assert (before["diagnosis"], mended["diagnosis"]) == (None, None)
    assert tiny["cause"] == "buffer"
    assert tiny["diagnosis"].startswith("4096 bytes are granted (net.core.rmem_max)")
    assert tiny["next"].startswith("sysctl -w net.core.rmem_max=")
