"""Without a GIL: importing the package must not bring it back, as an extension does that is silent about it."""

from __future__ import annotations

import os
import sys
import sysconfig

import pytest
from net import told

needs_free_threading = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL and no way to go without"
)


@needs_free_threading
def test_importing_the_package_leaves_the_gil_off(multicast, monkeypatch):
    monkeypatch.delenv("PYTHON_GIL", raising=False)  # which would keep it off, whatever is imported
    assert told(multicast, "import json, sys, multicast; print(json.dumps(sys._is_gil_enabled()))") is False


@needs_free_threading
def test_these_tests_run_without_a_gil_where_they_are_asked_to():
    if os.environ.get("PYTHON_GIL") != "0":
        pytest.skip("PYTHON_GIL is not 0: what the tests import may bring the GIL back")
    assert not sys._is_gil_enabled()
