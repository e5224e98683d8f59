"""Every example in docs/ runs as it stands, and prints what the page says."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import feeds
import pytest
from net import python_environment

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def examples():
    for page in PAGES:
        for number, found in enumerate(EXAMPLE.finditer(page.read_text("utf-8")), 1):
            yield pytest.param(*found.groups(), id=f"{page.relative_to(DOCS).with_suffix('')}-{number}")


def test_there_are_examples_and_each_says_what_it_prints():
    assert PAGES
    found = list(examples())
    assert len(found) == sum(page.read_text("utf-8").count("```python") for page in PAGES) > 0
    assert all(expected is not None for _, expected in (each.values for each in found))


def anchors(page):
    """Give the anchors of a page's headings, as code hosts and Sphinx make them."""
    for heading in re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page):
    """Other pages, their headings, and pictures."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        if page in PAGES and there.suffix == ".md":  # else it is no page of the site
            assert there.resolve().is_relative_to(DOCS.resolve()), target
        if heading:
            assert heading in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_well_on_a_code_host_too(page):
    """What Sphinx alone understands is in the reference and in tables of contents; the rest is plain Markdown."""
    text = page.read_text("utf-8")
    if page.parent.name != "reference":
        directives = set(re.findall(r"^```\{(.*?)\}", text, re.MULTILINE))
        assert directives <= ({"toctree"} if page.name == "index.md" else set())
        assert not re.search(r"\{[\w:]+\}`|^:::", text, re.MULTILINE)


@pytest.mark.skipif(sys.platform != "linux", reason="the pages are about Linux")
@pytest.mark.parametrize(("code", "expected"), list(examples()))
def test_an_example_prints_what_the_page_says(multicast, code, expected):
    with feeds.of_the_pages():
        done = subprocess.run(
            [sys.executable, "-P", "-W", "error", "-c", code],
            env=python_environment(multicast),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected
