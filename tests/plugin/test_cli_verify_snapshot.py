# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall verify` and `tool-firewall snapshot`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from cli_support import Site, run


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    made.habit("alice", days=2)
    yield made
    made.close()


def command(site: Site, *arguments: str) -> Any:
    return run(*arguments, "--state", str(site.folder))


def log_of(site: Site, path: Path) -> Path:
    anchor = site.journal.anchor()
    path.write_text(
        "INFO something else\n"
        f"2026-11-21 INFO tool firewall anchor: cursor={anchor.cursor} digest={anchor.digest}\n"
        f'{{"message": "tool firewall anchor: cursor={anchor.cursor} digest={anchor.digest}"}}\n'
        "tool firewall anchor: cursor=1 digest=short\n"
    )
    return path


def meddle(site: Site, statement: str) -> None:
    """Changes the file behind the journal's back, by the only SQLite that may open it."""
    connection = apsw.Connection(str(site.folder / "journal.db"))
    connection.execute(statement)
    assert connection.changes() > 0
    connection.close()


def test_a_whole_journal(site: Site, tmp_path: Path) -> None:
    result = command(site, "verify")
    assert result.exit_code == 0, result.output
    assert f"48 records checked, cursors 1 to {site.journal.last()}" in result.stdout
    assert result.stdout.endswith("whole\n")
    found = json.loads(
        command(site, "verify", "--json", "--anchors", str(log_of(site, tmp_path / "log"))).stdout
    )
    assert found["whole"]
    assert (found["records"], found["anchors"], found["problem"]) == (48, 1, "")
    assert found["digest"] == site.journal.anchor().digest


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM packs WHERE id = 5",
        "UPDATE packs SET body = CAST(substr(body, 1, 60) || x'00' || substr(body, 62) AS BLOB) WHERE id = 5",
    ],
)
def test_a_change_is_found(site: Site, statement: str) -> None:
    meddle(site, statement)
    result = command(site, "verify")
    assert result.exit_code == 1
    assert "error: not whole: " in result.stderr
    as_json = command(site, "verify", "--json")
    assert as_json.exit_code == 1
    found = json.loads(as_json.stdout)
    assert not found["whole"]
    assert found["problem"] in result.stderr


def test_an_anchor_of_another_history_is_a_problem(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"tool firewall anchor: cursor=3 digest={'ab' * 16}\n")
    assert command(site, "verify", "--anchors", str(log)).exit_code == 1
    # And one of a cursor that is not there (any more).
    log.write_text(f"tool firewall anchor: cursor=900 digest={'ab' * 16}\n")
    assert command(site, "verify", "--anchors", str(log)).exit_code == 1


def test_a_log_without_anchors(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("nothing\n")
    for path, said in ((log, "no line 'tool firewall anchor"), (tmp_path / "none", "cannot be read")):
        result = command(site, "verify", "--anchors", str(path))
        assert result.exit_code == 2
        assert said in result.stderr


def test_a_snapshot_is_made_listed_and_used(site: Site) -> None:
    assert json.loads(command(site, "snapshot", "list", "--json").stdout) == []
    made = json.loads(command(site, "snapshot", "--json").stdout)
    assert made["cursor"] == site.journal.last()
    assert made["bytes"] > 0
    listed = json.loads(command(site, "snapshot", "list", "--json").stdout)
    assert [(one["cursor"], one["bytes"]) for one in listed] == [(made["cursor"], made["bytes"])]
    table = command(site, "snapshot", "list").stdout
    assert str(made["cursor"]) in table
    status = json.loads(command(site, "status", "--json").stdout)
    assert status["journal"]["snapshot"]["cursor"] == made["cursor"]
    # Nothing new: the same one again.
    assert f"snapshot at cursor {made['cursor']}, " in command(site, "snapshot").stdout


def test_help_has_an_example() -> None:
    for name in ("export", "import", "backfill", "verify", "snapshot"):
        result = run(name, "--help")
        assert result.exit_code == 0
        assert f"  tool-firewall {name}" in result.stdout, name
