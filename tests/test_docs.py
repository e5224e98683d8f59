"""Every example in docs/ runs as it stands, and prints what the page says."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from net import python_environment

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def examples():
    for page in PAGES:
        for number, found in enumerate(EXAMPLE.finditer(page.read_text("utf-8")), 1):
            yield pytest.param(*found.groups(), id=f"{page.stem}-{number}")


def test_there_are_examples_and_each_says_what_it_prints():
    assert PAGES
    found = list(examples())
    assert len(found) == sum(page.read_text("utf-8").count("```python") for page in PAGES) > 0
    assert all(expected is not None for _, expected in (each.values for each in found))


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    """Other pages, their headings, and pictures."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.MULTILINE)
            assert heading in [each.lower().replace(" ", "-") for each in headings], target


@pytest.mark.skipif(sys.platform != "linux", reason="the pages are about Linux")
@pytest.mark.parametrize(("code", "expected"), list(examples()))
def test_an_example_prints_what_the_page_says(multicast, code, expected):
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected
