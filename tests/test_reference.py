"""The reference has each public name, in one place."""

from __future__ import annotations

import inspect
import pathlib
import re

PAGES = sorted((pathlib.Path(__file__).parent.parent / "docs" / "reference").glob("*.md"))
ENTRY = re.compile(r"^\.\. (?:auto|py:)\w+:: multicast\.([\w.]+)(?:\(\))?$", re.MULTILINE)


def classes(multicast):
    return {name: each for name in multicast.__all__ if inspect.isclass(each := getattr(multicast, name))}


def is_value(kind):
    return any(each.__name__ == "Value" for each in kind.__mro__)


def fields(kind):
    return {name for name in getattr(kind, "__slots__", ()) if not name.startswith("_")}


def members(kind):
    """What a class has that is public, but for what all values have, or all bytes."""
    ours = [each for each in kind.__mro__ if each.__module__.startswith("multicast.") and each.__name__ != "Value"]
    return {name for each in ours for name in vars(each) if not name.startswith("_")}


def test_each_public_name_is_in_one_place(multicast):
    expected = set(multicast.__all__)
    for name, kind in classes(multicast).items():
        in_its_docstring = fields(kind) if is_value(kind) and kind is not multicast.Filter else set()
        expected |= {f"{name}.{member}" for member in members(kind) - in_its_docstring}
    assert {"Receiver.recv_batch", "Receiver.closed", "Batch.lengths", "Poller.poll", "Filter.payload"} <= expected
    found = [name for page in PAGES for name in ENTRY.findall(page.read_text("utf-8"))]
    assert sorted(found) == sorted(expected)


def test_the_docstring_of_a_value_has_each_of_its_fields(multicast):
    """They have no other place in the reference."""
    values = [kind for kind in classes(multicast).values() if is_value(kind) and kind is not multicast.Filter]
    assert len(values) > 5
    for kind in values:
        told = re.findall(r"(?:^ *- |; )(\w+(?:, \w+)*):", kind.__doc__, re.MULTILINE)
        assert sorted(name for each in told for name in each.split(", ")) == sorted(fields(kind)), kind
