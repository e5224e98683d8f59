"""The examples in the README work as they stand."""

import pathlib
import re
import signal
import subprocess
import sys
import time

import feeds
import pytest
from net import python_environment

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text("utf-8")
RECEIVE, SEND, NUMPY = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def start(multicast):
    """Run code in an interpreter of its own; whatever still runs is ended after the test."""
    running = []

    def run(code):
        running.append(
            subprocess.Popen(
                [sys.executable, "-P", "-u", "-c", code],
                env=python_environment(multicast),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    with feeds.of_the_pages():
        yield run
        for process in running:
            process.kill()
            process.communicate()


def joined(process):
    """Wait until the process has joined the group, as the kernel lists it (addresses in hexadecimal, as stored)."""
    group = bytes([239, 255, 64, 66])[:: -1 if sys.byteorder == "little" else 1].hex().upper()
    igmp = pathlib.Path("/proc/net/igmp")
    deadline = time.monotonic() + 60
    while group not in igmp.read_text():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the example has not joined the group"
        time.sleep(0.005)


def test_receive_and_send(start):
    receiver = start(RECEIVE)
    joined(receiver)
    sender = start(SEND)
    assert sender.wait(20) == 0, sender.stderr.read()
    lines = [receiver.stdout.readline() for _ in range(3)]
    assert lines == ["5 b'first'\n", "6 b'second'\n", "5 b'third'\n"]
    receiver.send_signal(signal.SIGINT)
    assert receiver.wait(20) != 0
    assert "KeyboardInterrupt" in receiver.stderr.read()


def test_numpy(start):
    receiver = start(NUMPY)
    joined(receiver)
    sender = start(SEND)
    assert sender.wait(20) == 0, sender.stderr.read()
    assert receiver.wait(20) == 0, receiver.stderr.read()
    said = receiver.stdout.read()
    assert said in ("[102 115 116] [5 6 5]\n", "[102] [5]\n", "[102 115] [5 6]\n")


def test_the_commands_are_those_of_dev_py():
    root = pathlib.Path(__file__).parent.parent
    told = set(re.findall(r"python3 dev\.py (\w+)", README + (root / "CONTRIBUTING.md").read_text("utf-8")))
    done = subprocess.run([sys.executable, root / "dev.py", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for command in told:
        assert re.search(rf"^  {command}\b", done.stdout, re.MULTILINE), command


def test_it_never_tells_anyone_to_install_the_other_package():
    assert not re.search(r"pip install multicast(?!-skt)\b", README)
