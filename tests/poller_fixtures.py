"""Pollers for tests, and receivers to register with them; a test module has them by its `pytest_plugins`."""

from __future__ import annotations

import pytest
from waiting import DEADLINE


@pytest.fixture
def pipes(opened):
    """Receivers, and what each is fed by."""

    def pipes(count, **options):
        return [opened.pipe(**options) for _ in range(count)]

    return pipes


@pytest.fixture
def polled(multicast, opened):
    """A poller of these receivers, or of none."""

    def polled(*receivers, **options):
        options.setdefault("timeout", DEADLINE)
        return opened.closing(multicast.Poller(receivers, **options))

    return polled
