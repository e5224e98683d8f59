"""The benchmark's live scenarios: their books close, what they are to notice they do, and none leaves a process behind.

Owns runs as short as can be, with few contenders. Must not judge how fast anything is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from types import ModuleType
from unittest.mock import MagicMock

import pytest
from net import python_environment

pytestmark = [
    pytest.mark.alone,  # as fast as it goes, on CPUs of their own
    pytest.mark.skipif(sys.platform != "linux", reason="the live scenarios are for Linux"),
]

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def imported(*names: str) -> list[ModuleType]:
    """Modules of the benchmark, which find each other by bare names, as when it runs; here nothing else finds them."""
    before = sys.modules.copy()
    sys.path.insert(0, str(BENCHMARKS))
    for each in BENCHMARKS.glob("*.py"):  # a module of the tests may have such a name
        sys.modules.pop(each.stem, None)
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(BENCHMARKS))
        for each in BENCHMARKS.glob("*.py"):
            sys.modules.pop(each.stem, None)
            if each.stem in before:
                sys.modules[each.stem] = before[each.stem]


figures, latency, live, load, loops, programs, rate, roster, settings = imported(
    *("figures", "latency", "live", "load", "loops", "programs", "rate", "roster", "settings")
)

SHORT = live.Feed(5_000, 0.1)
FLOOD = live.Feed(0, 0.1, train=16)
STAMPED = live.Feed(1_000, 0.1, stamped=True)


@pytest.fixture(scope="module")
def built():
    with programs.built() as found:
        yield found


@pytest.fixture
def stage(built):
    return live.Stage(built)


def of(package, contender):
    """A contender of ours with this backend."""
    return dataclasses.replace(contender, program=package.BACKEND)


def kept(result):
    """A result as it is kept and read again."""
    return json.loads(json.dumps(result))


# One run -----------------------------------------------------------------------------------------------------------


NOT_OURS = (
    *(roster.C_RECV, roster.C_RECVMMSG, roster.C_TOLD, roster.ASYNCIO),
    *(roster.RECV_INTO, roster.RECVFROM_INTO, roster.RECVMSG_INTO),
)


@pytest.mark.parametrize("contender", NOT_OURS, ids=lambda each: each.name)
def test_the_books_of_a_run_close(stage, contender):
    if contender.program == "native":  # the socket module's: either backend may be there
        contender = dataclasses.replace(contender, program="stdlib")
    run = stage.run(contender, SHORT)
    assert run.sent > 0
    assert run.received + run.lost == run.sent
    assert run.drops == run.lost
    assert run.cpu > 0
    assert run.offered > 0


@pytest.mark.parametrize(
    "contender", [roster.NATIVE, roster.NATIVE_VIEWS, roster.NATIVE_TOLD], ids=lambda each: each.name
)
def test_the_books_of_ours_close(stage, multicast, contender):
    run = stage.run(of(multicast, contender), SHORT)
    assert run.sent > 0
    assert run.received + run.lost == run.sent
    assert run.drops == run.lost


WAITING = (
    *((each, SHORT) for each in (roster.NATIVE_SPIN, roster.NATIVE_ASYNCIO_VIEWS, roster.NATIVE_UVLOOP_VIEWS)),
    *((each, STAMPED) for each in (roster.NATIVE_SPIN, roster.NATIVE_ASYNCIO, roster.NATIVE_UVLOOP)),
    *((each, STAMPED) for each in (roster.NATIVE_ASYNCIO_CALLBACK, roster.NATIVE_UVLOOP_CALLBACK)),
)


@pytest.mark.parametrize(("contender", "feed"), WAITING, ids=lambda each: getattr(each, "name", ""))
def test_each_way_of_waiting_closes_its_books_or_is_absent_with_a_reason(stage, multicast, contender, feed):
    runs, absent = stage.take_turns([of(multicast, contender)], feed, 1, 0)
    assert set(runs) | set(absent) == {contender.name}
    for run in runs.get(contender.name, ()):
        assert run.received + run.lost == run.sent > 0
        assert len(run.delays) == (run.received if feed.stamped else 0)


@pytest.mark.parametrize("contender", [roster.EXPERT, roster.EXPERT_ASYNC, roster.UVLOOP, roster.SPEAD2, roster.GO])
def test_others_close_theirs_or_are_absent_with_a_reason(stage, contender):
    if contender.program == "native":
        contender = dataclasses.replace(contender, program="stdlib")
    runs, absent = stage.take_turns([contender], SHORT, 1, 0)
    if contender.name in absent:
        assert absent[contender.name]
    else:
        (run,) = runs[contender.name]
        assert run.received + run.lost == run.sent > 0


@pytest.mark.parametrize("contender", [roster.C_RECV, roster.RECV_INTO, roster.ASYNCIO], ids=lambda each: each.name)
def test_a_stamped_feed_gives_a_delay_for_each_datagram(stage, contender):
    if contender.program == "native":
        contender = dataclasses.replace(contender, program="stdlib")
    run = stage.run(contender, STAMPED)
    assert len(run.delays) == run.received > 0
    assert min(run.delays) > 0


def test_trains_are_single_datagrams_to_who_did_not_ask_for_them(stage, multicast):
    run = stage.run(of(multicast, roster.NATIVE), live.Feed(20_000, 0.1, train=16))
    assert run.sent % 16 == 0
    assert run.received + run.lost == run.sent > 0


def test_loss_is_noticed(built, multicast):
    """A receive buffer for a few datagrams, and a sender that does not wait."""
    stage = live.Stage(built, receive_buffer=4096)
    run = stage.run(of(multicast, roster.NATIVE), FLOOD)
    assert run.lost > rate.TOLERATED * run.sent
    assert run.drops == run.lost
    assert run.received > 0
    search = rate.Search([1.0])
    search.note(run)
    assert search.outcome()["rate"] == 0
    assert not search.outcome()["at_ceiling"]


REPORT = {"sent": 100, "begin_ns": 0, "end_ns": 10**9}
FOUND = {"received": 90, "user": 0.1, "system": 0.2, "delays": []}


@pytest.mark.parametrize(("received", "drops"), [(90, 9), (90, 0), (101, 0), (100, 1)])
def test_books_that_do_not_close_are_no_run(received, drops):
    with pytest.raises(live.Failure, match=f"C recv: 100 sent, {received} received, and {drops} dropped"):
        live._account(roster.C_RECV, REPORT, FOUND | {"received": received}, drops, 2 * 10**9)


def test_what_a_run_brought_is_counted_right():
    run = live._account(roster.C_RECV, REPORT, FOUND, 10, 2 * 10**9)
    assert (run.lost, run.offered, run.seconds) == (10, 100.0, 2.0)
    assert run.cpu == pytest.approx(0.3)


def test_a_train_that_was_dropped_may_count_as_one():
    assert live._account(roster.NATIVE_GRO, REPORT, FOUND, 1, 10**9).lost == 10
    with pytest.raises(live.Failure):
        live._account(roster.NATIVE_GRO, REPORT, FOUND, 0, 10**9)


# Who can't run, and who dies ---------------------------------------------------------------------------------------


def test_a_receiver_that_dies_at_once_is_reported_with_what_it_wrote(stage):
    with pytest.raises(live.Failure, match=r"(?s)nobody: ended with exit status 1\n.*KeyError: 'nonsense'"):
        stage.run(live.Contender("nobody", "stdlib", "nonsense"), SHORT)


def test_a_receiver_that_dies_amid_the_feed_is_reported(stage, monkeypatch):
    ready = live.Child.ready

    def killed(child):
        ready(child)
        if child.name == "C recv":
            child.process.kill()

    monkeypatch.setattr(live.Child, "ready", killed)
    with pytest.raises(live.Failure, match="C recv: ended with SIGKILL"):
        stage.run(roster.C_RECV, SHORT)


def test_a_sender_that_can_not_send_is_reported(stage):
    with pytest.raises(live.Failure, match="the sender: ended with exit status 2"):
        stage.run(roster.C_RECV, SHORT._replace(size=8))


@pytest.fixture
def goless(monkeypatch, tmp_path):
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    return programs.Programs(tmp_path)


def test_who_can_not_run_here_is_listed_with_the_reason(goless):
    stage = live.Stage(goless)
    runs, absent = stage.take_turns([roster.GO, roster.C_RECV], SHORT, 2, 0)
    assert absent == {"Go ReadBatch": "no Go toolchain"}
    assert list(runs) == ["C recv"]
    assert len(runs["C recv"]) == 2
    result = kept(load.measure(stage, [roster.GO, roster.C_RECV], load.Plan(0.05, 1, 5_000), 0))
    assert "Go ReadBatch  absent: no Go toolchain" in load.show(result)


def test_a_package_that_is_not_installed_is_a_reason(stage, monkeypatch, tmp_path):
    (tmp_path / "uvloop.py").write_text("raise ImportError('no uvloop here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    contender = dataclasses.replace(roster.UVLOOP, program="stdlib")
    assert stage.take_turns([contender], SHORT, 1, 0) == ({}, {contender.name: "no uvloop here"})


def test_the_native_backend_is_absent_where_it_was_not_built(stage, monkeypatch):
    monkeypatch.setattr(live.multicast, "BACKEND", "stdlib")
    monkeypatch.setattr(live.multicast, "BACKEND_REASON", "no extension")
    with pytest.raises(live.Absent, match="no extension"):
        stage.run(roster.NATIVE, SHORT)


def children(pid: int) -> list[int]:
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_leaves_no_process_behind(multicast):
    code = """
import sys; sys.path.append(sys.argv[1])
import live, programs, roster
with programs.built() as found:
    live.Stage(found).run(roster.C_RECV, live.Feed(1_000, 60))
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, BENCHMARKS], env=python_environment(multicast), stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while len(found := children(process.pid)) < 2 or not all(named(pid) in ("feed", "receive") for pid in found):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert not any(is_alive(pid) for pid in found)


def named(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


# The scenarios, end to end -----------------------------------------------------------------------------------------


def drawn(scenario, result) -> str:
    """Draw it on a figure that only notes what is called: the words of all calls."""
    figure = MagicMock()
    scenario.plot(result, figure)
    return str(figure.mock_calls)


def contenders(package):
    """Few, under the names that the goals ask for."""
    ours = [roster.NATIVE, roster.NATIVE_TOLD]
    theirs = [roster.RECV_INTO, roster.RECVMSG_INTO]
    return [dataclasses.replace(each, program=package.BACKEND) for each in (*ours, *theirs)] + [roster.C_RECVMMSG]


@pytest.mark.parametrize("scenario", [rate, latency, load, loops], ids=lambda each: each.__name__)
def test_a_run_measures_by_its_settings(scenario, monkeypatch):
    asked = []
    monkeypatch.setattr(scenario, "built", contextlib.nullcontext)
    monkeypatch.setattr(scenario, "Stage", lambda programs: "stage")
    monkeypatch.setattr(scenario, "measure", lambda *arguments: asked.append(arguments))
    for given in (settings.Settings(True, seed=1), settings.Settings(seed=2), settings.Settings(full=True, seed=3)):
        scenario.run(given)
        ((stage, several, how, seed),) = asked
        assert (stage, how, seed) == ("stage", scenario.plan(given), given.seed)
        assert several
        asked.clear()


def test_rate_from_end_to_end(stage, multicast):
    result = kept(rate.measure(stage, contenders(multicast), rate.Plan(0.05, 4, 1, 50_000), 0))
    assert set(result["found"]) == {each.name for each in contenders(multicast)}
    for (found,) in result["found"].values():
        stood = [step["offered"] for step in found["steps"] if step["lost"] <= rate.TOLERATED * step["sent"]]
        assert found["rate"] == max(stood, default=0)
    text = rate.show(result)
    assert all(name in text for name in result["found"])
    assert f"{result['ceiling']['trains']:,.0f}/s" in text
    assert len(rate.goals(result)) == 3
    assert "socket.recv_into" in drawn(rate, result)


def test_latency_from_end_to_end(stage, multicast):
    several = [each for each in contenders(multicast) if not each.told]
    result = kept(latency.measure(stage, several, latency.Plan(0.1, 2), 0))
    for name in (each.name for each in several):
        found = result["found"][name]
        assert sum(found["histogram"]["counts"]) == found["datagrams"] > 0
        assert len(found["p50_of_rounds"]) == 2
        assert found["ns"]["p50"] <= found["ns"]["p99"] <= found["ns"]["p99.9"]
        assert name in latency.show(result)
    blocking, spinning = latency.goals(result)
    assert blocking.value > 0
    assert spinning.met is None
    assert "native, spin" in spinning.why
    assert "socket.recv_into" in drawn(latency, result)


def test_load_from_end_to_end(stage, multicast):
    result = kept(load.measure(stage, contenders(multicast), load.Plan(0.1, 2, 5_000), 0))
    for each in contenders(multicast):
        assert [run["ns"] > 0 for run in result["found"][each.name]] == [True, True]
        assert each.name in load.show(result)
    assert load.goals(result) == []
    assert "socket.recv_into" in drawn(load, result)


def test_loops_from_end_to_end(stage):
    several = [dataclasses.replace(each, program="stdlib") for each in (roster.ASYNCIO, roster.UVLOOP)]
    result = kept(loops.measure(stage, several, loops.Plan(0.1, 2), 0))
    assert len(result["found"][roster.ASYNCIO.name]["rates"]) == 2
    assert roster.ASYNCIO.name in loops.show(result)
    assert all(goal.met is None and "native" in goal.why for goal in loops.goals(result))
    assert roster.ASYNCIO.name in drawn(loops, result)


# What is made of the figures ---------------------------------------------------------------------------------------


def planted(sent: int, lost: int, offered: float) -> live.Run:
    return live.Run(sent, sent - lost, lost, lost, offered, 1.0, 0.1, 0.1, [])


@pytest.mark.parametrize("stands", range(9))
def test_the_search_ends_below_the_first_step_that_loses(stands):
    rates = [1000.0 * 2**step for step in range(8)]
    search = rate.Search(rates)
    while not search.done:
        loses = search.step >= stands
        search.note(planted(10**6, 2 if loses else 1, rates[search.step]))
    found = search.outcome()
    assert found["rate"] == (rates[stands - 1] if stands else 0)
    assert found["at_ceiling"] == (stands == 8)
    assert len(found["steps"]) <= 4 + (stands < 8)


def test_a_sender_that_was_held_up_proves_nothing_but_twice():
    search = rate.Search([100.0, 200.0])
    search.note(planted(10**6, 0, 90.0))
    assert not search.done
    search.note(planted(10**6, 0, 80.0))
    assert search.done
    assert search.outcome()["at_ceiling"]
    assert search.outcome()["rate"] == 90


def test_the_ladder_leads_from_the_lowest_rate_to_the_ceiling():
    rates = rate.ladder(1000, rate.Plan(1, 2, 1, 100))
    assert rates == [125, 250, 500, 1000]
    assert rate.ladder(50, rate.Plan(1, 2, 1, 100)) == [50]


def rates(ours: float, theirs: float, ceiling: bool, both: bool = False):
    def rounds(value, stood):
        return [{"rate": value, "at_ceiling": stood, "steps": []}] * 2

    return {"found": {"native": rounds(ours, ceiling), "socket.recv_into": rounds(theirs, both)}, "absent": {}}


def test_the_goal_of_the_rate_is_met_and_not_met():
    assert rate.goals(rates(200, 100, False))[0].met is True
    assert rate.goals(rates(199, 100, False))[0].met is False
    ceiling = rate.goals(rates(150, 100, True))[0]
    assert ceiling.met is True
    assert "all that the sender can send" in ceiling.why
    assert ceiling.value == 1.5
    assert rate.goals(rates(200, 0, False))[0].met is None
    assert rate.goals(rates(200, 100, True, both=True))[0].met is None
    assert rate.goals(rates(100, 200, False, both=True))[0].met is False
    assert rate.goals(rates(200, 100, False))[1].met is None


def waits(native: float, spinning: float):
    found = {"native": native, "native, spin": spinning, "socket.recv_into": 100}
    return {"found": {name: {"p50_of_rounds": [each] * 3} for name, each in found.items()}, "absent": {}}


def test_the_goals_of_the_wake_up_are_met_and_not_met():
    assert [goal.met for goal in latency.goals(waits(105, 25))] == [True, True]
    assert [goal.met for goal in latency.goals(waits(106, 26))] == [False, False]


def test_the_goals_of_the_event_loops_are_met_and_not_met():
    def result(ours, lost):
        found = {each.name: {"rates": [100.0] * 3, "lost": [0.5] * 3} for each in (roster.ASYNCIO, roster.UVLOOP)}
        for each in (roster.NATIVE_ASYNCIO_VIEWS, roster.NATIVE_UVLOOP_VIEWS):
            found[each.name] = {"rates": [ours] * 3, "lost": [lost] * 3}
        return {"found": found, "absent": {}}

    assert [goal.met for goal in loops.goals(result(400, 0.1))] == [True, True]
    assert [goal.met for goal in loops.goals(result(399, 0.1))] == [False, True]
    assert [goal.met for goal in loops.goals(result(199, 0.1))] == [False, False]
    assert all("may take more" in goal.why for goal in loops.goals(result(199, 0.0)))


def test_percentiles_are_values_that_came():
    values = list(range(1, 1001))
    assert [figures.percentile(values, share) for share in (0.5, 0.99, 0.999)] == [500, 990, 999]
    assert figures.percentile([7], 0.999) == 7


def test_every_value_is_in_its_bin():
    values = [1, 999, 1000, 1001, 45_000, 45_001, 10**7]
    found = kept(figures.histogram(values))
    edges = figures.edges(found)
    assert sum(found["counts"]) == len(values)
    assert len(edges) == len(found["counts"]) + 1
    for low, high, count in zip(edges, edges[1:], found["counts"], strict=False):
        assert count == sum(low * (1 - 1e-9) <= value < high * (1 - 1e-9) for value in values)


def test_one_round_has_no_spread():
    assert figures.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert figures.ratio([2.0, 4.0], [1.0, 1.0]).median == 3.0
    assert math.isclose(figures.quartiles([1, 2, 3]).median, 2)
