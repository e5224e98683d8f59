"""A receiver of the live scenarios, in a process of its own: python receivers CONTENDER OPTIONS, `live.py` starts it.

Owns which words name which function. Must not print anything but what `Job` says.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from functools import partial
from typing import Any

import counting
import timing
from job import Absent, Job

from multicast import COLUMNS


def under_uvloop(coroutine: Any) -> Any:
    """Run it to its end on uvloop."""
    try:
        import uvloop
    except ImportError as error:
        coroutine.close()
        raise Absent(str(error)) from None
    return uvloop.run(coroutine)


ALL = {"columns": COLUMNS, "timestamps": "software"}
SOURCE = {"columns": ["source"]}

COUNTING = {
    "recv_into": counting.recv_into,
    "recvfrom_into": counting.recvfrom_into,
    "recvmsg_into": counting.recvmsg_into,
    "multicast_expert": counting.multicast_expert,
    "multicast_expert-async": counting.multicast_expert_async,
    "spead2": counting.spead2,
    "asyncio": partial(counting.protocol, run=asyncio.run),
    "uvloop": partial(counting.protocol, run=under_uvloop),
    "batches": counting.batches,
    "batches-spin": partial(counting.batches, spin=math.inf),
    "batches-source": partial(counting.batches, **SOURCE),
    "batches-all": partial(counting.batches, **ALL),
    "batches-gro": partial(counting.batches, gro=True),
    "views": counting.views,
    "batches-asyncio": partial(counting.batches_async, run=asyncio.run, **SOURCE),
    "batches-uvloop": partial(counting.batches_async, run=under_uvloop, **SOURCE),
    "views-asyncio": partial(counting.views_async, run=asyncio.run, **SOURCE),
    "views-uvloop": partial(counting.views_async, run=under_uvloop, **SOURCE),
}
TIMING = {
    "recv_into": timing.recv_into,
    "multicast_expert": timing.multicast_expert,
    "asyncio": partial(timing.protocol, run=asyncio.run),
    "uvloop": partial(timing.protocol, run=under_uvloop),
    "batches": timing.batches,
    "batches-spin": partial(timing.batches, spin=math.inf),
    "batches-asyncio": partial(timing.batches_async, run=asyncio.run),
    "batches-uvloop": partial(timing.batches_async, run=under_uvloop),
    "callback-asyncio": partial(timing.callback, run=asyncio.run),
    "callback-uvloop": partial(timing.callback, run=under_uvloop),
}


def main() -> None:
    """Receive until told to stop."""
    name, options = sys.argv[1:]
    job = Job(**json.loads(options))
    try:
        found = (TIMING if job.timed else COUNTING)[name](job)
    except Absent as reason:
        print(json.dumps({"absent": str(reason)}), flush=True)
    else:
        job.tell(found)


main()
