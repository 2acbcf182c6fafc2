# SPDX-License-Identifier: Apache-2.0
"""Settings: what is accepted, what is refused and how clearly, and that every text about them is true."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from cpex.framework import ConfigLoader
from cpex_tool_firewall import config
from cpex_tool_firewall.config import (
    TABLE_BEGIN,
    TABLE_END,
    TOOL_OVERRIDES,
    ConfigError,
    Settings,
    load,
    settings_table,
    with_settings_table,
)

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "manifests" / "gateway").glob("*.yaml"))


def problems(mapping: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(mapping)
    return caught.value.problems


def test_nothing_is_needed() -> None:
    assert load(None) == load({}) == Settings()
    assert load({}).mode == "learning"


def test_all_settings_together() -> None:
    settings = load(
        {
            "mode": "block",
            "threshold": 1,
            "burst_threshold": 1000,
            "burst_window_seconds": 0.5e1,
            "learning_days": 3,
            "new_for_hours": 0,
            "half_life_days": 1,
            "session_idle_minutes": 1440,
            "time_zone": "Europe/Berlin",
            "tenant_time_zones": {"team": "Asia/Kolkata"},
            "user_time_zones": {"a@b.c": "America/St_Johns"},
            "peer_groups": {"one": ["a", "b"], "two": ["c"], "none": []},
            "trusted_agent_header": "X-Agent-Id",
            "session_header": None,
            "uninspectable_exempt_tools": ["upload"],
            "state": "/srv/state",
            "max_users_per_tenant": 10,
            "max_memory_mb": 64,
        }
    )
    assert settings.trusted_agent_header == "x-agent-id"
    assert settings.group_of() == {"a": "one", "b": "one", "c": "two"}
    assert set(settings.shared()) | TOOL_OVERRIDES == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("mode", "Block", "learning | warn | shadow | block"),
        ("mode", None, "learning | warn | shadow | block"),
        ("threshold", 0.33, "number, 0.34 to 1"),
        ("threshold", 1.01, "number, 0.34 to 1"),
        ("threshold", math.nan, "number, 0.34 to 1"),
        ("threshold", math.inf, "number, 0.34 to 1"),
        ("threshold", "0.5", "number, 0.34 to 1"),
        ("threshold", True, "number, 0.34 to 1"),
        ("burst_threshold", 1, "whole number, 2 to 1000"),
        ("burst_threshold", 20.5, "whole number, 2 to 1000"),
        ("burst_threshold", False, "whole number, 2 to 1000"),
        ("burst_window_seconds", 0, "number, 1 to 3600"),
        ("learning_days", -1, "number, 0 to 365"),
        ("new_for_hours", 721, "number, 0 to 720"),
        ("half_life_days", 0, "number, 1 to 365"),
        ("session_idle_minutes", 0, "number, 1 to 1440"),
        ("time_zone", "Mars/Olympus", "IANA time zone, such as Europe/Berlin"),
        ("time_zone", "../../etc/passwd", "IANA time zone, such as Europe/Berlin"),
        ("time_zone", "", "IANA time zone, such as Europe/Berlin"),
        ("tenant_time_zones", {"t": "Nowhere"}, "block of text: IANA time zone, such as Europe/Berlin"),
        ("user_time_zones", ["UTC"], "block of text: IANA time zone, such as Europe/Berlin"),
        ("peer_groups", {"g": "alice"}, "block of text: list of text"),
        ("trusted_agent_header", "x agent", "header name or null"),
        ("session_header", "a\r\nb", "header name or null"),
        ("uninspectable_exempt_tools", "upload", "list of text"),
        ("uninspectable_exempt_tools", [1], "list of text"),
        ("state", "", "text or null"),
        ("state", 5, "text or null"),
        ("max_users_per_tenant", 9, "whole number, 10 to 10000000"),
        ("max_memory_mb", 63, "whole number, 64 to 65536"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_is_accepted(
    name: str, value: Any, accepted: str
) -> None:
    (problem,) = problems({name: value})
    path, _, rest = problem.partition(": ")
    assert path.split(".")[0] == name
    assert rest.endswith(f"; accepted: {accepted}")


def test_the_path_leads_to_the_wrong_entry() -> None:
    (problem,) = problems({"tenant_time_zones": {"good": "UTC", "bad": "Nope"}})
    assert problem.startswith("tenant_time_zones.bad: 'Nope' is not a known time zone")


def test_every_problem_is_named_at_once() -> None:
    found = problems({"mode": "x", "threshold": 9, "thresold": 1, 7: 1, "a\nb": 1})
    assert [line.split(":")[0] for line in found] == ["thresold", "7", "'a\\nb'", "mode", "threshold"]
    assert "did you mean threshold?" in found[0]
    assert all(name in found[1] for name in Settings.model_fields)
    assert all("\n" not in line for line in found)


def test_a_user_in_two_groups_is_refused() -> None:
    (problem,) = problems({"peer_groups": {"one": ["alice"], "two": ["bob", "alice"]}})
    assert problem == "peer_groups: 'alice' is in 'one' and in 'two'; accepted: each user in one group"


@pytest.mark.parametrize("mapping", [[], "mode: warn", 5])
def test_what_is_no_block_is_refused(mapping: Any) -> None:
    (problem,) = problems(mapping)
    assert problem.startswith("config: ")


def test_a_long_value_is_not_printed_in_full() -> None:
    (problem,) = problems({"mode": "x" * 10_000})
    assert len(problem) < 300


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).mode = "block"


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"| `{name}` | " in settings_table()


def test_the_readme_has_the_settings_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == with_settings_table(text), (
        "the table is old; run: python -m cpex_tool_firewall.config README.md"
    )


def test_the_table_is_put_between_its_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{TABLE_BEGIN}\nold\n{TABLE_END}\nafter\n")
    assert config.main([str(page)]) == 0
    assert page.read_text() == f"before\n{TABLE_BEGIN}\n{settings_table()}\n{TABLE_END}\nafter\n"
    assert config.main([]) == 0
    assert capsys.readouterr().out.strip() == settings_table()
    with pytest.raises(ValueError, match="settings:begin"):
        with_settings_table("no markers")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_ready_configurations_are_right(path: Path) -> None:
    entries = {plugin.name: plugin for plugin in ConfigLoader.load_config(str(path)).plugins or []}
    firewall = entries.pop("ToolFirewall")
    assert firewall.kind == "cpex_tool_firewall.plugin.ToolFirewallPlugin"
    assert firewall.hooks == ["tool_pre_invoke", "tool_post_invoke"]
    assert firewall.mode.value == "sequential"
    assert firewall.on_error.value == "fail"
    assert firewall.priority == 900
    assert all(other.priority < firewall.priority for other in entries.values())
    settings = load(firewall.config)
    assert settings.mode == (path.stem if path.stem in ("learning", "warn", "block") else "warn")


def test_there_is_a_ready_configuration_for_each_case() -> None:
    assert {path.stem for path in MANIFESTS} == {"learning", "warn", "block", "with-policy-plugin"}


def test_the_manifest_of_the_package_is_right() -> None:
    package = Path(config.__file__).parent
    manifest = yaml.safe_load((package / "plugin-manifest.yaml").read_text())
    assert manifest["available_hooks"] == ["tool_pre_invoke", "tool_post_invoke"]
    assert manifest["kind"] == "cpex_tool_firewall.plugin.ToolFirewallPlugin"
    assert load(manifest["default_configs"]) == Settings()
