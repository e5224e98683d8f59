"""How an agent is told what to do: a command is a line of JSON on stdin, and so is its answer on stdout.

Owns that loop. Must not outlive its stdin, nor a time limit, whatever goes wrong.
"""

import json
import os
import signal
import sys


def keep_to_one_cpu():
    """What is sent on one CPU goes through one queue, on every link: so it arrives in the order it was sent in.

    All agents of a process that tests have the same one, those of another process have another where there are several.
    """
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(os.environ["MULTICAST_TEST_SHARE"]) % len(cpus)]})


def serve(commands, first):
    """Say `first`, then answer each command by the function do_<its name> of these, until stdin ends."""
    signal.alarm(100)
    keep_to_one_cpu()
    print(json.dumps({"ok": first}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": commands[f"do_{command.pop('do')}"](**command)}
        except Exception as error:
            answer = {"error": [type(error).__name__, getattr(error, "errno", None), str(error)]}
        print(json.dumps(answer), flush=True)
