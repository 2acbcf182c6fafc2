# SPDX-License-Identifier: Apache-2.0
"""A firewall of its own for each test that asks: own state folder, own alarms, nothing left running."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hooks import Firewall
from redis_server import RedisServer


@pytest.fixture
def firewall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firewall]:
    made = Firewall(tmp_path / "state", monkeypatch)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A healthy server for all tests of a session; each uses a prefix of its own and leaves it healthy."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()
