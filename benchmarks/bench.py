"""The benchmark's runner: measures scenarios, shows their tables and plots, and holds them against the goals.

Owns the command line, the record that is kept, and the exit code: 1 where a scenario could not be measured as it
should be, 0 otherwise, whatever the figures are. Must not know what a scenario does; each is a module with

    TITLE                    what it measures
    run(settings) -> dict    the result; what JSON keeps, it is given back as
    show(result) -> str      the table
    goals(result)            a list of `goals.Goal`
    plot(result, figure)     draws on a matplotlib figure; `style.py` has the colours

    python3 dev.py bench [SCENARIO ...] [--quick | --full] [--json FILE] [--plots FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Iterator
from types import ModuleType

import goals
import machine
from settings import Settings

SCENARIOS = ("drain", "rate", "latency", "load", "loops", "scale", "fields", "steady")
ABOUT = {"quick": "quick: too few rounds for figures to believe", "full": "full", "": "usual"}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's meaning."""
    parser = argparse.ArgumentParser(
        prog="dev.py bench",
        description="Every way to receive UDP multicast beside the others, in one interleaved run: bare C, the socket "
        "module, other packages and this one. Traffic stays on the loopback interface (TTL 0) and in namespaces made "
        "for it. Exit code 1: a contender left datagrams behind, or could not run.",
    )
    parser.add_argument(
        "scenario", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all if none is named"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="few rounds: does it work?")
    length.add_argument("--full", action="store_true", help="many rounds: figures to publish")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of payloads and the order of turns")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="keep everything that was measured")
    parser.add_argument("--plots", metavar="FOLDER", type=pathlib.Path, help="draw an SVG for each scenario")
    parser.add_argument("--read", metavar="FILE", type=pathlib.Path, help="show what --json kept; measure nothing")
    given = parser.parse_args(arguments)
    for name in given.scenario:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return given


def measured(name: str, settings: Settings) -> dict[str, object]:
    """Run a scenario: its title and result, or what went wrong."""
    found: dict[str, object] = {"title": name}
    begin = time.monotonic()
    try:
        scenario = importlib.import_module(name)
        found["title"] = scenario.TITLE
        result = scenario.run(settings)
    except Exception as error:  # the other scenarios are worth as much
        traceback.print_exc()
        return found | {"failed": f"{type(error).__name__}: {error}"}
    # As it would be read again: what is shown now and what is shown of the file are one.
    return found | {"seconds": round(time.monotonic() - begin, 1), "result": json.loads(json.dumps(result))}


def section(name: str, found: dict[str, object]) -> str:
    """Return what there is to read of a scenario."""
    head = f"\n{name}: {found['title']}"
    if "failed" in found:
        return f"{head}\nFAILED: {found['failed']}"
    return f"{head} ({found['seconds']} s)\n{importlib.import_module(name).show(found['result'])}"


def results(record: dict) -> Iterator[tuple[str, ModuleType, dict]]:
    """Give the scenarios that were measured: name, module and result."""
    for name, found in record["scenarios"].items():
        if "result" in found:
            yield name, importlib.import_module(name), found["result"]


def draw(record: dict, folder: pathlib.Path) -> None:
    """Draw an SVG for each scenario; the same record gives the same bytes."""
    import style
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    for name, scenario, result in results(record):
        with rc_context(style.SETTINGS):
            figure = Figure(figsize=style.SIZE, layout="constrained")
            scenario.plot(result, figure)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
        print(f"drawn: {folder / f'{name}.svg'}")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    given = parse(arguments)
    if given.read:
        record = json.loads(given.read.read_text("utf-8"))
        wanted = given.scenario or record["scenarios"]
        record["scenarios"] = {name: found for name, found in record["scenarios"].items() if name in wanted}
    else:
        settings = Settings(given.quick, given.full, given.seed)
        record = {"machine": machine.describe(), "settings": dataclasses.asdict(settings), "scenarios": {}}
    print(machine.text(record["machine"]))
    print(f"{'rounds':12} {ABOUT[next((word for word in ABOUT if record['settings'].get(word)), '')]}", flush=True)
    for name in list(record["scenarios"]) if given.read else given.scenario or SCENARIOS:
        if not given.read:
            record["scenarios"][name] = measured(name, settings)
        print(section(name, record["scenarios"][name]), flush=True)
    reached = [goal for _, scenario, result in results(record) for goal in scenario.goals(result)]
    record["goals"] = [goal._asdict() for goal in reached]
    print(f"\nGOALS\n{goals.table(reached)}")
    if given.json:
        given.json.write_text(json.dumps(record) + "\n", "utf-8")
    if given.plots:
        draw(record, given.plots)
    failed = [name for name, found in record["scenarios"].items() if "failed" in found]
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
