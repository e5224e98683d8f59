"""The benchmark's runner and its scenarios on filled queues: what they hold against the goals, and what fails a run.

Figures here are planted, or few and not judged: no test depends on how fast anything is.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import types

import bench
import contenders
import drain
import fields
import goals
import machine
import pytest
import scale
import steady
from net import python_environment
from rig import unavailable

from multicast import bench as short

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the full benchmark is of Linux")


# Goals -------------------------------------------------------------------------------------------------------------


def test_a_goal_is_met_or_not_by_its_median():
    high, low = (1.0, 0.5, 1.5), (0.96, 0.5, 1.5)
    assert [goals.at_least("a", 0.97, found).met for found in (high, low)] == [True, False]
    assert [goals.at_most("a", 0.97, found).met for found in (high, low)] == [False, True]
    assert goals.at_least("a", 1, high).met
    assert goals.at_most("a", 1, high).met
    assert goals.unmeasured("a", "at least 1", "why").met is None


def test_the_table_says_what_was_met_and_what_not():
    table = goals.table(
        [
            goals.at_least("first", 0.97, (0.981, 0.97, 0.99)),
            goals.at_most("second", 60, (71.25, 65, 1234), "ns", "the kernel's own"),
            goals.unmeasured("third", "at least 2", "no toolchain"),
        ]
    )
    _, *lines = (re.sub(r"  +", "|", line) for line in table.splitlines())
    assert lines == [
        "first|at least 0.97|0.981|0.970 to 0.990|met",
        "second|at most 60 ns|71.2|65.0 to 1,234|NOT MET: the kernel's own",
        "third|at least 2|not measured: no toolchain",
    ]


def planted(**medians):
    """Times of contenders: rounds that differ, but not between contenders but by their medians' ratio."""
    dice = random.Random(64)
    turns = [1 + dice.random() / 10 for _ in range(9)]
    return {name: [round(median * turn, 2) for turn in turns] for name, median in medians.items()}


def planted_drain(factor):
    """Figures of `drain` with the native backend's times multiplied: by 1, every goal is met."""
    plain = {"C recvmmsg": 400, "C recv": 570, "native, batch by batch": 405 * factor, "socket.recv_into": 800}
    plain |= {"native, for batch in rx": 440 * factor, "native, a view of each": 440 * factor + 50 * factor}
    plain |= {"native, sources kept": 430 * factor, "socket.recvfrom_into": 1_250}
    told = {"C recvmmsg, told": 600, "native, kept": 620 * factor, "socket.recvmsg_into": 1_830}
    everything = {"C recvmmsg, all told": 700, "native, all kept": 710 * factor}
    trains = {"C recvmmsg, GRO": 15, "native, GRO": 17 * factor, "socket.recv_into, no GRO": 900}
    groups = {"payload": planted(**plain), "metadata": planted(**told), "all": planted(**everything)}
    cases = [{"count": count, "size": 200, "rounds": 9, "groups": groups} for count in (drain.HOT, drain.COLD)]
    cases.append({"count": drain.COUPLED, "size": 200, "rounds": 9, "groups": {"trains": planted(**trains)}})
    return {"batch": 64, "slot": 2048, "cases": cases, "absent": {"nobody": "gone"}}


def planted_scale(factor):
    found = {}
    for part in scale.PARTS:
        names = (
            ("native", "native, recv_batch(0)", "native, Poller") if part in ("groups", "receivers") else ("native",)
        )
        last = {"groups": 1_000, "receivers": 64}.get(part, 1_024)
        times = planted(**{f"{name} {at}": 500 + factor * at / last for name in names for at in (1, last)})
        found[part] = {"rounds": 9, "times": times}
    found["groups"]["sending"] = planted(**{"sendto 1": 1_500, "sendto 1000": 3_000})
    return found


def planted_fields(factor):
    times = dict.fromkeys((fields.STDLIB, fields.STDLIB_READ), 500)
    reading = {fields.NOTHING: 500} | dict.fromkeys(fields.WAYS, 500 + 4 * factor)
    every_size = {
        name: {str(size): planted(**of_size) for size in fields.BATCHES}
        for name, of_size in (("times", times), ("reading", reading))
    }
    return {"count": 512, "size": 200, "rounds": 9, "absent": {}} | every_size


def planted_steady(factor):
    each = {"batches": 1_000, "stay": factor - 1, "calls": factor - 1}
    return {"backend": "native", "batch": 2, "batches": 1_000, "found": dict.fromkeys(steady.WAYS, each)}


PLANTED = {
    "drain": (drain, planted_drain, 1, 4),
    "scale": (scale, planted_scale, 20, 200),
    "fields": (fields, planted_fields, 1, 4),
    "steady": (steady, planted_steady, 1, 2),
}


@pytest.fixture(autouse=True)
def _as_native(monkeypatch):
    """Planted results are the native backend's, whatever this process has."""
    monkeypatch.setattr(scale, "GOALS", [(part, re.sub("^stdlib", "native", who), at) for part, who, at in scale.GOALS])


@pytest.mark.parametrize("name", PLANTED)
def test_every_goal_of_a_scenario_can_be_met_and_missed(name):
    module, result, good, bad = PLANTED[name]
    met, missed = module.goals(result(good)), module.goals(result(bad))
    assert met
    assert [each.met for each in met] == [True] * len(met)
    assert [each.met for each in missed] == [False] * len(met)
    assert [each.name for each in missed] == [each.name for each in met]
    assert len({each.name for each in met}) == len(met)


def test_what_the_figures_of_drain_are():
    found = {each.name: each.value for each in drain.goals(planted_drain(1))}
    assert found["drain: payload, against bare C"] == pytest.approx(400 / 405, rel=1e-3)
    assert found["drain: metadata kept, against recvmsg_into"] == pytest.approx(1830 / 620, rel=1e-3)
    assert found["drain: trains by GRO, against recv_into"] == pytest.approx(900 / 17, rel=1e-2)
    assert found["drain: a view of each, on top"] == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("name", PLANTED)
def test_without_the_native_backend_goals_are_not_measured(name, monkeypatch):
    module, result, good, _ = PLANTED[name]
    without = json.loads(json.dumps(result(good)))
    if name == "steady":
        without["backend"] = "stdlib"
    text = re.sub(r'"native[^"]*": (\[[^]]*\](, )?)', "", json.dumps(without)).replace(", }", "}")
    for each in module.goals(json.loads(text)):
        assert each.met is None
        assert each.why


@pytest.mark.parametrize("name", PLANTED)
def test_a_table_has_every_contender(name):
    module, result, good, _ = PLANTED[name]
    shown, kept = module.show(result(good)), json.dumps(result(good))
    for contender in re.findall(r'"((?:native|socket\.|C )[^"]*?)(?: \d+)?": \[', kept) or steady.WAYS:
        assert contender in shown or contender == fields.NOTHING  # which is what the others are on top of


def test_what_a_way_read_has_to_be_right():
    fields.check({"right": [fields.COUNT] * 3})
    with pytest.raises(short.NotMeasuredError, match="wrong read"):
        fields.check({"right": [fields.COUNT], "wrong": [fields.COUNT, 7]})


# The runner --------------------------------------------------------------------------------------------------------


def run(multicast, *arguments):
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", ROOT / "benchmarks", *map(str, arguments)],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_scenario_from_end_to_end(multicast, tmp_path):
    kept = tmp_path / "kept.json"
    done = run(multicast, "fields", "--quick", "--json", kept)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(kept.read_text())
    assert record["machine"]["backend"] == multicast.BACKEND
    assert record["settings"] == {"quick": True, "full": False, "seed": 64}
    for times in record["scenarios"]["fields"]["result"]["times"].values():
        assert (fields.ARRAY in times) == (multicast.BACKEND == "native")
        assert fields.STDLIB_READ in times
        assert {len(each) for each in times.values()} == {10}
        assert all(taken > 0 for each in times.values() for taken in each)
    assert [each["met"] is None for each in record["goals"]] == [multicast.BACKEND != "native"] * len(record["goals"])
    assert "few rounds" in done.stdout
    assert "\nGOALS\n" in done.stdout
    again = run(multicast, "--read", kept)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == done.stdout


def test_the_steady_state_is_counted(native, tmp_path):
    """It is what the native backend promises; and a view is an object of Python's, so the counting counts."""
    kept = tmp_path / "kept.json"
    assert run(native, "steady", "--quick", "--json", kept).returncode == 0
    found = json.loads(kept.read_text())["scenarios"]["steady"]["result"]["found"]
    assert found["batch by batch"]["batches"] >= 10_000
    assert found["batch by batch"]["calls"] == found["batch by batch"]["stay"] == 0
    assert found["a view of each"]["calls"] >= found["a view of each"]["batches"] * steady.BATCH


def test_a_thousand_groups_are_joined_in_a_namespace(multicast):
    """In a process of its own, so the limit of this host stays."""
    code = "import json, groups; from settings import Settings; print(json.dumps(groups.measure(Settings(quick=True))))"
    environment = python_environment(multicast)
    environment["PYTHONPATH"] += f":{ROOT / 'benchmarks'}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    if "left_out" in found:
        unavailable(found["left_out"])
    assert f"{multicast.BACKEND} 1000" in found["times"]
    assert {len(each) for each in found["times"].values()} == {found["rounds"]}


@pytest.fixture
def plant(monkeypatch):
    """Make scenarios of functions."""
    names = []

    def add(name, run, reached=()):
        module = types.ModuleType(name)
        module.TITLE, module.run, module.show = f"the {name} one", run, lambda result: f"shown: {result}"
        module.goals, module.plot = lambda result: list(reached), lambda result, figure: None
        monkeypatch.setitem(sys.modules, name, module)
        names.append(name)
        monkeypatch.setattr(bench, "SCENARIOS", (*names, "not_there"))

    return add


def test_a_scenario_that_fails_ends_the_run_with_1_and_no_other(plant, capsys, tmp_path):
    def failing(settings):
        raise short.NotMeasuredError("somebody left datagrams behind")

    plant("planted_bad", failing)
    plant("planted_good", lambda settings: {"rounds": settings.rounds(100)}, [goals.at_least("g", 1, (2, 2, 2))])
    kept = tmp_path / "kept.json"
    assert bench.main(["--json", str(kept)]) == 1
    said = capsys.readouterr()
    assert "planted_bad: the planted_bad one\nFAILED: NotMeasuredError: somebody left datagrams behind" in said.out
    assert "not_there: not_there\nFAILED: ModuleNotFoundError" in said.out
    assert "shown: {'rounds': 100}" in said.out
    assert "not measured: planted_bad, not_there" in said.err
    assert bench.main(["--read", str(kept)]) == 1
    assert bench.main(["planted_good"]) == 0


def test_a_goal_that_is_not_met_is_no_failure(plant, capsys):
    plant("planted", lambda settings: {}, [goals.at_least("slow", 2, (1, 1, 1))])
    assert bench.main(["planted", "--full"]) == 0
    assert "NOT MET" in capsys.readouterr().out


def test_wrong_usage_is_exit_code_2(capsys):
    for wrong in (["nonsense"], ["drain", "--quick", "--full"], ["drain", "--seed", "x"]):
        with pytest.raises(SystemExit) as ended:
            bench.main(wrong)
        assert ended.value.code == 2
    assert "no scenario 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("name", PLANTED)
def test_a_plot_of_the_same_figures_is_the_same_file(name, tmp_path, capsys):
    module, result, good, _ = PLANTED[name]
    record = {"scenarios": {name: {"title": module.TITLE, "result": json.loads(json.dumps(result(good)))}}}
    drawn = []
    for folder in ("once", "again"):
        bench.draw(record, tmp_path / folder)
        drawn.append((tmp_path / folder / f"{name}.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert b"native" in drawn[0]
    assert b"<dc:date>" not in drawn[0]


def test_who_can_not_take_part_is_named(monkeypatch):
    assert "numpy" not in contenders.absent()
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert "numpy" in contenders.absent()


def test_what_a_machine_is_can_be_told_and_kept():
    facts = machine.describe()
    assert {"cpu", "cores", "kernel", "python", "package", "backend"} <= set(facts)
    assert json.loads(json.dumps(facts)) == facts
    assert all(name in machine.text(facts) for name in facts)


# dev.py ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (["drain", "--quick"], ["bench"]),
        (["--plots", "docs/plots", "--json", "x"], ["bench", "plots"]),
        (["--plots=docs/plots"], ["bench", "plots"]),
    ],
)
def test_dev_py_passes_arguments_on_and_installs_what_they_need(monkeypatch, arguments, extras):
    spec = importlib.util.spec_from_file_location("dev_under_test", ROOT / "dev.py")
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    ran, installed = [], []
    monkeypatch.setattr(dev, "set_up", installed.append)
    monkeypatch.setattr(dev, "code_of", lambda command, **_: ran.append(command) or 7)
    assert dev.bench(arguments) == 7
    assert installed == extras
    assert ran == [[dev.PYTHON, "-P", ROOT / "benchmarks", *arguments]]


STOPPED = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("dev_under_test", sys.argv[1])
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)
install = signal.signal
def telling(number, handler):
    def handle(*arguments):
        handler(*arguments)
        os.write(1, b"noticed\\n")  # at once, unlike print, where Python does not buffer
    return install(number, handle)
signal.signal = telling
try:
    dev.code_of([sys.executable, "-c", sys.argv[2]])
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
IN_ORDER = """
import os, signal, time
try:
    time.sleep(0.2)  # until it is waited for
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(1, b"ending\\n")
    time.sleep({})
    print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a Unix terminal does")
@pytest.mark.parametrize(
    ("seconds", "twice", "last"), [(0.5, False, ["ended", "stopped"]), (60, True, ["noticed", "stopped"])]
)
def test_what_dev_py_runs_ends_in_order_by_ctrl_c_and_at_once_by_a_second_one(seconds, twice, last):
    """subprocess.run kills it after 0.25 s. Who presses twice before the first one was noticed has pressed once."""
    command = [sys.executable, "-c", STOPPED, ROOT / "dev.py", IN_ORDER.format(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            os.killpg(process.pid, signal.SIGINT)
            assert {process.stdout.readline() for _ in range(2)} == {"ending\n", "noticed\n"}
            if twice:
                os.killpg(process.pid, signal.SIGINT)
            assert process.communicate(timeout=30)[0].split() == last
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
