# SPDX-License-Identifier: Apache-2.0
"""A firewall of its own for each test that asks: own state folder, own alarms, nothing left running."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hooks import Firewall


@pytest.fixture
def firewall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firewall]:
    made = Firewall(tmp_path / "state", monkeypatch)
    yield made
    made.stop()
