"""What keeps tests out of each other's way: shares of groups and ports, and turns at those that the pages name."""

from __future__ import annotations

import subprocess
import sys

import feeds
import pytest
from net import python_environment

import multicast as package

OTHER = """
import feeds, sys
print(feeds.share(), *feeds.new_feed(), flush=True)
sys.stdin.readline()
print("waits", flush=True)
with feeds.of_the_pages():
    print("has them", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other():
    """Another process that tests."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", OTHER],
        env=python_environment(package, tests=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_processes_have_groups_and_ports_of_their_own(other):
    share, group, port = other.stdout.readline().split()
    assert int(share) != feeds.share()
    mine = [feeds.new_feed() for _ in range(feeds.PORTS)]
    assert group not in [each for each, _ in mine]
    assert int(port) not in [each for _, each in mine]


def test_those_of_the_pages_are_had_by_one_process_at_a_time(other):
    other.stdin.write("\n")
    other.stdin.flush()
    assert [other.stdout.readline() for _ in range(3)][1:] == ["waits\n", "has them\n"]
    assert feeds._claimed(feeds.SHARES) is None
    other.kill()
    other.wait()
    with feeds.of_the_pages():
        assert feeds._claimed(feeds.SHARES) is None
