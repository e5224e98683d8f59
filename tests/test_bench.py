"""The benchmark's short form: it measures what it says, and tells when it could not."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys

import pytest
from net import python_environment

from multicast import __main__ as command
from multicast import bench


def run(multicast, *arguments):
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "multicast", "bench", *arguments],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_prints_this_backend_beside_the_socket_module(multicast):
    done = run(multicast, "--seconds", "1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"{multicast.BACKEND} backend" in lines[0]
    assert "256 datagrams of 200 bytes" in lines[1]
    for name in (f"{multicast.BACKEND}, batch by batch", "socket.recv_into", "socket.recvfrom_into"):
        assert sum(line.startswith(f"{name}  ") for line in lines) == 1
    assert "python3 dev.py bench" in lines[-1]


def test_json_is_one_object_with_sane_figures(multicast):
    done = run(multicast, "--seconds", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert (found["version"], found["backend"]) == (multicast.__version__, multicast.BACKEND)
    assert found["rounds"] >= bench.FEWEST
    assert set(found["results"]) == {"payload", "metadata"} if sys.platform == "linux" else {"payload"}
    for title, contenders in found["results"].items():
        assert any(name.startswith(f"{multicast.BACKEND}, ") for name in contenders)
        assert contenders[bench.REFERENCES[title]]["speed_median"] == 1
        for each in contenders.values():
            assert 0 < each["best_ns"] <= each["median_ns"]
            assert 0 < each["speed_low"] <= each["speed_median"] <= each["speed_high"]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x", "1e9"])
def test_wrong_usage_is_exit_code_2(multicast, seconds):
    done = run(multicast, f"--seconds={seconds}")
    assert done.returncode == 2
    assert "--seconds" in done.stderr
    assert "multicast bench" in done.stderr


def test_ctrl_c_is_exit_code_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", interrupted)
    assert command.main(["bench"]) == 130


# The guards, which are the same whatever backend empties a queue ---------------------------------------------------


@pytest.fixture
def queue():
    with bench.Queue([bytes([number]) * 20 for number in range(100)]) as made:
        yield made


def taking(queue, count):
    return bench.Contender("planted", queue, bench.one_by_one(queue.socket.recv, count, 2048))


def test_who_leaves_datagrams_behind_is_not_measured(queue):
    assert len(bench.take_turns([taking(queue, 100)], bench.rounds(2))["planted"]) == 2
    with pytest.raises(bench.NotMeasuredError, match="planted left datagrams behind"):
        bench.take_turns([taking(queue, 99)], bench.rounds(2))


def test_who_takes_more_than_there_is_is_not_measured(queue):
    with pytest.raises(bench.NotMeasuredError, match="planted found the queue empty before it had 100"):
        bench.take_turns([taking(queue, 101)], bench.rounds(2))


def test_the_short_form_ends_with_1_then(monkeypatch, capsys):
    honest = bench.plain_contenders

    def one_that_stops_early(queue):
        yield from honest(queue)
        yield bench.Contender("planted", queue, bench.one_by_one(queue.socket.recv, queue.count - 1, 2048))

    monkeypatch.setattr(bench, "plain_contenders", one_that_stops_early)
    assert command.main(["bench", "--seconds", "1"]) == 1
    said = capsys.readouterr()
    assert said.err == "bench: planted left datagrams behind\n"
    assert "ns a datagram" not in said.out


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell what it dropped")
@pytest.mark.parametrize("filled_before", [0, 3])
def test_a_queue_that_dropped_some_is_no_queue(queue, filled_before):
    contender = taking(queue, 100)
    for _ in range(filled_before):
        bench.taken_by(contender)
    queue.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with pytest.raises(bench.TooShortError, match=r"of 100 datagrams .* were dropped"):
        queue.fill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell what it queued")
def test_a_datagram_of_somebody_else_is_noticed(queue, monkeypatch):
    monkeypatch.setattr(bench, "LATE", 0.05)
    bench.taken_by(taking(queue, 100))
    with bench.skt.open_sender(bench.GROUP, queue.socket.getsockname()[1], interface="127.0.0.1", ttl=0) as stranger:
        stranger.send(b"not of the benchmark")
    with pytest.raises(bench.TooShortError, match="others came"):
        queue.fill()


def test_queues_have_ports_of_their_own():
    """With one port, two would get each other's datagrams: among 600 of some 28,000 that is all but sure to be seen."""
    with contextlib.ExitStack() as closing:
        ports = [closing.enter_context(bench.joined_socket()).getsockname()[1] for _ in range(600)]
    assert len(set(ports)) == 600


def test_a_queue_closes_what_it_opened(queue):
    receiver = queue.open()
    with queue:
        pass
    with pytest.raises(OSError, match="closed") as caught:
        receiver.recv_batch(0)
    assert caught.value.errno == errno.EBADF
    assert queue.socket.fileno() == -1


# The turns and the figures -----------------------------------------------------------------------------------------


class Ready:
    """What is always filled and always empty."""

    count = 4

    def fill(self):
        pass

    def left(self):
        return False


def test_turns_come_in_another_order_each_time_and_the_first_ones_do_not_count():
    seen = []

    def drain(name):
        def record():
            seen.append(name)
            return 40 * len(seen)

        return record

    several = [bench.Contender(name, Ready(), drain(name)) for name in "abc"]
    times = bench.take_turns(several, bench.rounds(30), 7, fillings=1)
    orders = ["".join(seen[at : at + 3]) for at in range(0, len(seen), 3)]
    assert len(orders) == bench.WARM_UP + 30
    assert len(set(orders)) == 6
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert {name: len(each) for name, each in times.items()} == {"a": 30, "b": 30, "c": 30}
    first = seen.index("a", 3 * bench.WARM_UP)
    assert times["a"][0] == 40 * (first + 1) / Ready.count


def test_a_turn_is_the_median_of_fillings_after_one_that_does_not_count():
    answers = iter([9_000, 400, 100, 200] * 2)
    once = [bench.Contender("a", Ready(), lambda: next(answers))]
    assert bench.take_turns(once, bench.rounds(2, 0), warm_up=0) == {"a": [50.0, 50.0]}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no way to pin a thread")
def test_pinned_is_for_a_while():
    before = os.sched_getaffinity(0)
    with bench.pinned():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_two_of_one_name_are_refused():
    twice = [bench.Contender("a", Ready(), int)] * 2
    with pytest.raises(ValueError, match="one name"):
        bench.take_turns(twice, bench.rounds(1))


def test_figures_are_of_the_same_round():
    times = {"ours": [100.0, 300.0, 100.0, 300.0, 100.0], "theirs": [200.0, 600.0, 200.0, 600.0, 400.0]}
    assert bench.spread([1, 2, 3, 4, 5]) == (3, 2, 4)
    assert bench.speed(times, "ours", "theirs") == (2, 2, 2)
    assert bench.speed(times, "theirs", "ours") == (0.5, 0.5, 0.5)
    assert bench.on_top(times, "theirs", "ours") == (300, 100, 300)
    head, ours, theirs = bench.table(times, "theirs").splitlines()
    assert "theirs = 1" in head
    assert ours.split() == ["ours", "100.0", "100.0", "2.000", "2.000", "to", "2.000"]
    assert theirs.split() == ["theirs", "400.0", "200.0", "1.000", "1.000", "to", "1.000"]
