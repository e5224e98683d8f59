"""The walker (walker.pyx), built once for all tests that reach the native backend's inside through it.

Owns where it is built, without sanitizers. Must not run it.
"""

from __future__ import annotations

import pytest
import walking


@pytest.fixture(scope="session")
def built(native, tmp_path_factory):
    """The folder where the walker is built, and the way to it."""
    folder = tmp_path_factory.mktemp("walker")
    return folder, walking.build(folder)


@pytest.fixture(scope="session")
def walker(built):
    return walking.load(built[1])
