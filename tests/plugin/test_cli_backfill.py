# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall backfill` on a database with the gateway's columns; tests/gateway has a real gateway's."""

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, Site, run
from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.journal.interface import records_since

sqlalchemy = pytest.importorskip("sqlalchemy")

SCHEMA = (
    "CREATE TABLE tools (id VARCHAR(36), original_name VARCHAR(255), gateway_id VARCHAR(36),"
    " team_id VARCHAR(36))",
    "CREATE TABLE tool_metrics (id INTEGER, tool_id VARCHAR(36), timestamp {time}, is_success BOOLEAN)",
    "CREATE TABLE structured_log_entries (id VARCHAR(36), timestamp {time}, level VARCHAR(20),"
    " component VARCHAR(100), correlation_id VARCHAR(64), user_id VARCHAR(255), user_email VARCHAR(255),"
    " duration_ms FLOAT, context JSON)",
)
NOW = time.time()
TEAM, OTHER = "team-1", "team-2"


def rows() -> list[tuple[Any, ...]]:
    """(id, time, level, component, correlation id, user id, user email, ms, context) of 10 days of calls."""
    made: list[tuple[Any, ...]] = []

    def call(at: float, user: str, tool: str, *, team: str | None, level: str = "INFO") -> None:
        number = len(made)
        context = json.dumps({"resource_type": "tool", "resource_id": tool})
        request = json.dumps({"team_id": team} if team else {})
        made.append((f"a{number}", at, level, "tool_service", "same", None, None, None, "{}"))  # started
        made.append((f"b{number}", at, level, "tool_service", "same", user, None, 500.0, context))
        made.append((f"c{number}", at + 0.1, "INFO", "http_gateway", "same", None, user, 600.0, request))

    for day in range(10, 0, -1):
        for n in range(6):
            at = NOW - day * DAY + n * 90
            call(at, "alice", "id-query", team=TEAM)
            call(at + 40, "bob", "id-public", team=OTHER)
        call(NOW - day * DAY + 700, "alice", "id-query", team=None, level="ERROR")
        call(NOW - day * DAY + 800, "alice", "id-gone", team=TEAM)
    call(NOW - 60 * DAY, "alice", "id-query", team=TEAM)
    return made


TOOLS = [("id-query", "db_query", "gw", TEAM), ("id-public", "search", None, None)]


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "gateway db#1.db"
    with sqlite3.connect(path) as connection:
        for statement in SCHEMA:
            connection.execute(statement.format(time="DATETIME"))
        connection.executemany("INSERT INTO tools VALUES (?, ?, ?, ?)", TOOLS)
        connection.executemany(
            "INSERT INTO structured_log_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(row[0], stamp(row[1]), *row[2:]) for row in rows()],
        )
        connection.execute("INSERT INTO tool_metrics VALUES (1, 'id-query', ?, 1)", (stamp(NOW - DAY),))
    connection.close()
    return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    yield made
    made.close()


def backfill(site: Site, url: str | Path, *arguments: str) -> dict[str, Any]:
    address = f"sqlite:///{url}" if isinstance(url, Path) else url
    result = run("backfill", "--gateway-db", address, "--state", str(site.folder), "--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def learned(site: Site, user: str, tenant: str) -> Any:
    done = run("baseline", "show", user, "--tenant", tenant, "--state", str(site.folder), "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def check_learned(site: Site, found: dict[str, Any]) -> None:
    assert (found["calls"], found["new"], found["unknown_tools"]) == (130, 130, 10)
    alice, bob = learned(site, "alice", TEAM), learned(site, "bob", OTHER)
    assert (alice["calls"], bob["calls"]) == (70, 60)
    assert [(tool["server"], tool["tool"]) for tool in alice["tools"]] == [("gw", "db_query")]
    assert [(tool["server"], tool["tool"]) for tool in bob["tools"]] == [("", "search")]
    decoded = [decode_record(record) for record in records_since(site.journal)]
    outcomes = [fields["outcome"] for fields in decoded if fields["kind"] == "outcome"]
    assert (outcomes.count("ok"), outcomes.count("tool_error")) == (120, 10)
    first = next(fields for fields in decoded if fields["kind"] == "call")
    assert first["ts"] == pytest.approx(NOW - 10 * DAY - 0.5, abs=0.001)  # its row less its 500 ms


def test_it_learns_users_tools_and_tenants(site: Site, database: Path) -> None:
    before = database.read_bytes()
    check_learned(site, backfill(site, database))
    assert database.read_bytes() == before


def test_again_with_other_days_and_tenants_nothing_counts_twice(site: Site, database: Path) -> None:
    assert backfill(site, database, "--days", "3", "--tenant", OTHER)["new"] in (18, 24)
    assert backfill(site, database, "--days", "5")["new"] > 0
    assert backfill(site, database, "--dry-run")["new"] > 0
    backfill(site, database)
    cursor = site.journal.last()
    assert backfill(site, database)["new"] == 0
    assert site.journal.last() == cursor
    assert (learned(site, "alice", TEAM)["calls"], learned(site, "bob", OTHER)["calls"]) == (70, 60)
    assert backfill(site, database, "--days", "90")["new"] == 1


def test_what_the_plugin_recorded_is_left_out(site: Site, database: Path) -> None:
    for n in range(6):
        site.call("alice", "db_query", NOW - DAY + n * 90 - 0.4, tenant=TEAM)
    found = backfill(site, database)
    # The site's calls are on the server "srv": another tool. So nothing is left out ...
    assert found["recorded_by_plugin"] == 0
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE tools SET gateway_id = 'srv' WHERE id = 'id-query'")
    connection.close()
    # ... until it is the same one.
    found = backfill(site, database, "--dry-run")
    assert (found["recorded_by_plugin"], found["calls"]) == (6, 124)


def test_only_the_tool_is_known(site: Site, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM structured_log_entries")
    connection.close()
    result = run("backfill", "--gateway-db", f"sqlite:///{database}", "--state", str(site.folder))
    assert result.exit_code == 1
    assert "1 call in tool_metrics, but that table does not say whose" in result.stderr
    assert "STRUCTURED_LOGGING_DATABASE_ENABLED=true and LOG_LEVEL=INFO" in result.stderr


def test_only_failures_were_stored(site: Site, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM structured_log_entries WHERE level = 'INFO'")
    connection.close()
    result = run("backfill", "--gateway-db", f"sqlite:///{database}", "--state", str(site.folder))
    assert result.exit_code == 0
    assert "only failed calls were stored" in result.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("not a url", "not a database URL; accepted: "),
        ("mysql+pymysql://u:hunter2@h/d", "mysql is not supported"),
        ("postgresql+nodriver://u:hunter2@h/d", "is not installed here; run: pip install 'psycopg[binary]'"),
        ("postgresql://u:hunter2@127.0.0.1:1/d", "127.0.0.1:1/d"),
        ("sqlite:////no/such/file.db", "/no/such/file.db: there is no such file"),
        ("sqlite://", "there is no such file"),
        ("://u:hunter2@h", "not a database URL"),
    ],
)
def test_wrong_addresses_show_no_password(site: Site, url: str, said: str) -> None:
    result = run("backfill", "--gateway-db", url, "--state", str(site.folder))
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "hunter2" not in result.output


def test_other_files(site: Site, tmp_path: Path, database: Path) -> None:
    empty, text = tmp_path / "empty.db", tmp_path / "text.db"
    sqlite3.connect(empty).execute("CREATE TABLE t (a)").connection.close()
    text.write_text("no database at all" * 100)
    for path, said in ((empty, "has no table"), (text, "file is not a database")):
        result = run("backfill", "--gateway-db", f"sqlite:///{path}", "--state", str(site.folder))
        assert result.exit_code == 2
        assert said in result.stderr
    missing = run("backfill", "--state", str(site.folder), env={"DATABASE_URL": None})
    assert missing.exit_code == 2
    assert "--gateway-db is missing" in missing.stderr
    by_environment = run(
        "backfill", "--state", str(site.folder), "--dry-run", env={"DATABASE_URL": f"sqlite:///{database}"}
    )
    assert by_environment.exit_code == 0, by_environment.output


@pytest.mark.skipif(shutil.which("postgres") is None, reason="needs a PostgreSQL server")
def test_postgresql(site: Site, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with Postgres(tmp_path) as url:
        engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            for statement in SCHEMA:
                connection.exec_driver_sql(statement.format(time="TIMESTAMPTZ"))
            connection.exec_driver_sql("SET TIME ZONE 'UTC'")
            connection.exec_driver_sql("INSERT INTO tools VALUES (%s, %s, %s, %s)", TOOLS)
            connection.exec_driver_sql(
                "INSERT INTO structured_log_entries VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [(row[0], stamp(row[1]), *row[2:]) for row in rows()],
            )
        engine.dispose()
        check_learned(site, backfill(site, url))


class Postgres:
    """A PostgreSQL server in a folder, reached by a socket there. It does not run as root."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path("/tmp") / f"tf-{folder.name}-{time.time_ns()}"

    def __enter__(self) -> str:
        self._folder.mkdir(mode=0o777)
        self._folder.chmod(0o777)
        bindir = Path(str(shutil.which("postgres"))).resolve().parent
        self._as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        data = str(self._folder / "data")
        initdb = [*self._as, str(bindir / "initdb"), "-D", data, "-U", "lab", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True)
        self._server = subprocess.Popen(
            [*self._as, str(bindir / "postgres"), "-D", data, "-k", str(self._folder), "-h", "", "-F"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 30
        while not (self._folder / ".s.PGSQL.5432").exists():
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.1)
        return f"postgresql://lab:secret@/postgres?host={self._folder}"

    def __exit__(self, *about: object) -> None:
        self._server.terminate()
        self._server.wait(30)
        shutil.rmtree(self._folder)
