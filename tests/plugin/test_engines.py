# SPDX-License-Identifier: Apache-2.0
"""Settings into an engine, and what is said when the compiled part is not of this release."""

import pytest
from cpex_tool_firewall import engines
from cpex_tool_firewall._native import Engine
from cpex_tool_firewall.config import load

KEY = b"a key that nobody may ever see.."


def test_an_engine_of_another_release_is_an_error_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_release(key: bytes, **settings: object) -> Engine:
        return Engine(key, **settings, unknown=1)  # type: ignore[arg-type, call-arg]

    monkeypatch.setattr(engines, "Engine", other_release)
    with pytest.raises(ImportError, match="reinstall") as raised:
        engines.build_engine(load({}), KEY)
    assert raised.value.__suppress_context__
    assert "nobody may ever see" not in str(raised.value)


def test_every_setting_reaches_the_engine() -> None:
    engine = engines.build_engine(load({"time_zone": "Europe/Berlin", "learning_days": 3}), KEY, worker=5)
    assert engine.mode_in_force(engine.policy(), now=0.0) == "learning"
