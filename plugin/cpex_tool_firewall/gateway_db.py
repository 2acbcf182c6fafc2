# SPDX-License-Identifier: Apache-2.0
"""Calls of the past from the database of the gateway, opened for reading only.

docs/backfill.md says what the database holds and under which settings. The one table that has the user, the
tool, the time and the result of a call in one row is structured_log_entries, and only when the gateway ran
with STRUCTURED_LOGGING_DATABASE_ENABLED=true. Everything else lacks the user or the tool, and nothing is
guessed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.engine import URL

_CHUNK: Final = 500  # rows
_REQUEST_SECONDS: Final = 3600.0  # a request ends at most so long after its call
_BUSY_SECONDS: Final = 10.0
_ACCEPTED: Final = "accepted: the gateway's DATABASE_URL, such as sqlite:////var/lib/mcp.db or postgresql://user:password@host/db"


class GatewayDatabaseError(Exception):
    """The database cannot be used. The text says what is wrong and what to do, and shows no password."""


@dataclass(frozen=True, slots=True)
class PastCall:
    """One call, named as the plugin would have named it."""

    started: float  # seconds since the epoch
    ended: float
    tenant: str
    user: str
    server: str
    tool: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """How much there is within a time span."""

    calls: int  # rows that name user and tool
    unnamed: int  # rows that name the tool only, in tool_metrics
    first: float  # of the rows that name both; 0 when there are none


@dataclass(frozen=True, slots=True)
class _Tool:
    server: str
    name: str
    team: str


class GatewayDatabase:
    """The database behind a URL. close() it. Everything raises GatewayDatabaseError."""

    def __init__(self, url: str) -> None:
        self.unknown_tools = 0  # calls of tools that the gateway no longer knows
        self.path: Path | None = None  # of a SQLite file
        self._engine, self.shown = self._open(url)
        try:
            self._check()
            self._tools = self._read_tools()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()

    def holdings(self, since: float, until: float) -> Holdings:
        """What there is from `since` to before `until`, seconds since the epoch."""
        from sqlalchemy import func, select

        log = _log()
        metrics = _table("tool_metrics", timestamp="time")
        span = (_moment(since), _moment(until))
        with self._reading() as connection:
            calls, first = connection.execute(
                select(func.count(), func.min(log.c.timestamp)).where(*_calls_between(log, *span))
            ).one()
            unnamed = connection.execute(
                select(func.count())
                .select_from(metrics)
                .where(metrics.c.timestamp >= span[0], metrics.c.timestamp < span[1])
            ).scalar_one()
        return Holdings(calls, unnamed, _seconds(first) if first is not None else 0.0)

    def calls(self, since: float, until: float) -> Iterator[PastCall]:
        """The calls that ended from `since` to before `until`, in the order in which they ended."""
        from sqlalchemy import and_, or_, select

        log = _log()
        where = _calls_between(log, _moment(since), _moment(until))
        after: tuple[datetime, str] | None = None
        while True:
            query = select(log).where(*where).order_by(log.c.timestamp, log.c.id).limit(_CHUNK)
            if after is not None:
                at, row_id = after
                query = query.where(or_(log.c.timestamp > at, and_(log.c.timestamp == at, log.c.id > row_id)))
            with self._reading() as connection:
                rows = connection.execute(query).all()
                teams = self._teams(connection, rows)
            if not rows:
                return
            after = (rows[-1].timestamp, rows[-1].id)
            for row, team in zip(rows, teams, strict=True):
                call = self._call(row, team)
                if call is None:
                    self.unknown_tools += 1
                else:
                    yield call

    def _call(self, row: Any, team: str | None) -> PastCall | None:
        context = row.context if isinstance(row.context, dict) else {}
        tool = self._tools.get(str(context.get("resource_id")))
        if tool is None:
            return None
        ended = _seconds(row.timestamp)
        return PastCall(
            started=ended - max(row.duration_ms or 0.0, 0.0) / 1000,
            ended=ended,
            tenant=team or tool.team,
            user=row.user_id,
            server=tool.server,
            tool=tool.name,
            ok=row.level not in ("ERROR", "CRITICAL"),
        )

    def _teams(self, connection: Connection, rows: Sequence[Any]) -> list[str | None]:
        # The team of the token is in the row of the request, which has the same correlation id. Clients may
        # choose that, so it must be the same user's, and the next request to end after the call.
        from sqlalchemy import select

        log = _log()
        wanted = {row.correlation_id for row in rows if row.correlation_id}
        if not wanted:
            return [None] * len(rows)
        found: dict[tuple[str, str], list[tuple[float, str | None]]] = {}
        query = (
            select(log.c.correlation_id, log.c.user_email, log.c.timestamp, log.c.context)
            .where(
                log.c.component == "http_gateway",
                log.c.correlation_id.in_(sorted(wanted)),
                log.c.timestamp >= rows[0].timestamp,
                log.c.timestamp <= rows[-1].timestamp + timedelta(seconds=_REQUEST_SECONDS),
            )
            .order_by(log.c.timestamp)
        )
        for row in connection.execute(query):
            team = row.context.get("team_id") if isinstance(row.context, dict) else None
            key = (row.correlation_id, row.user_email)
            found.setdefault(key, []).append((_seconds(row.timestamp), team))
        teams: list[str | None] = []
        for row in rows:
            ended = _seconds(row.timestamp)
            requests = found.get((row.correlation_id, row.user_id), [])
            teams.append(next((team for at, team in requests if at >= ended), None))
        return teams

    def _read_tools(self) -> dict[str, _Tool]:
        from sqlalchemy import select

        tools = _table("tools", id="text", original_name="text", gateway_id="text", team_id="text")
        with self._reading() as connection:
            return {
                str(row.id): _Tool(row.gateway_id or "", row.original_name, row.team_id or "")
                for row in connection.execute(select(tools))
            }

    def _check(self) -> None:
        from sqlalchemy import inspect
        from sqlalchemy.exc import SQLAlchemyError

        try:
            there = set(inspect(self._engine).get_table_names())
        except SQLAlchemyError as error:
            raise self._failed(error) from error
        missing = {"structured_log_entries", "tools", "tool_metrics"} - there
        if missing:
            raise GatewayDatabaseError(
                f"{self.shown}: has no table {', '.join(sorted(missing))}; this is not a gateway's database, "
                "or one of an older release than 1.0"
            )

    def _open(self, text: str) -> tuple[Engine, str]:
        try:
            from sqlalchemy import create_engine
            from sqlalchemy.engine import make_url
            from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        except ImportError as error:
            raise GatewayDatabaseError(
                "SQLAlchemy is not installed here; run this where the gateway is installed, or: pip install "
                "'cpex-tool-firewall[backfill]'"
            ) from error
        try:
            url = make_url(text)
        except (ArgumentError, ValueError) as error:
            # The message would quote the text, which may hold a password.
            raise GatewayDatabaseError(f"--gateway-db: not a database URL; {_ACCEPTED}") from error
        shown = url.set(query={}).render_as_string(hide_password=True)
        backend = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
        try:
            if backend == "sqlite":
                return self._open_sqlite(url), shown
            if backend == "postgresql":
                driver = (
                    "postgresql+psycopg" if url.drivername in ("postgres", "postgresql") else url.drivername
                )
                engine = create_engine(
                    url.set(drivername=driver), execution_options={"postgresql_readonly": True}
                )
                return engine, shown
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            driver = url.set(drivername=driver).get_driver_name() if backend == "postgresql" else ""
            raise GatewayDatabaseError(
                f"{shown}: the driver {driver or url.drivername} is not installed here; run: pip install "
                "'psycopg[binary]'"
            ) from error
        raise GatewayDatabaseError(f"--gateway-db: {backend} is not supported; {_ACCEPTED}")

    def _open_sqlite(self, url: URL) -> Engine:
        from sqlalchemy import create_engine

        path = Path(url.database or "")
        if not url.database or url.database == ":memory:" or not path.is_file():
            raise GatewayDatabaseError(
                f"{url.database or 'sqlite://'}: there is no such file; after sqlite:/// comes a path, with "
                "four slashes when it is absolute"
            )
        self.path = path
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        return create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(
                address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False
            ),
        )

    def _reading(self) -> _Reading:
        return _Reading(self)

    def _failed(self, error: Exception) -> GatewayDatabaseError:
        # The driver's own words, without SQLAlchemy's copy of statement and parameters.
        words = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()
        return GatewayDatabaseError(f"{self.shown}: {words[0] if words else type(error).__name__}")


class _Reading:
    """A connection for a while; its errors become GatewayDatabaseError."""

    def __init__(self, database: GatewayDatabase) -> None:
        self._database = database
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._connection = self._database._engine.connect()
        except SQLAlchemyError as error:
            raise self._database._failed(error) from error
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        if self._connection is not None:
            self._connection.close()
        if isinstance(error, SQLAlchemyError):
            raise self._database._failed(error) from error


def _table(name: str, **columns: str) -> TableClause:
    from sqlalchemy import JSON, DateTime, Float, String, column, table

    types: dict[str, Any] = {
        "text": String(),
        "time": DateTime(timezone=True),
        "number": Float(),
        "json": JSON(),
    }
    return table(name, *(column(key, types[kind]) for key, kind in columns.items()))


def _log() -> TableClause:
    return _table(
        "structured_log_entries",
        id="text",
        timestamp="time",
        level="text",
        component="text",
        correlation_id="text",
        user_id="text",
        user_email="text",
        duration_ms="number",
        context="json",
    )


def _calls_between(log: TableClause, since: datetime, until: datetime) -> tuple[Any, ...]:
    # One row a call: of the rows of tool_service only that of a finished call names the user.
    return (
        log.c.component == "tool_service",
        log.c.user_id.is_not(None),
        log.c.user_id != "",
        log.c.duration_ms.is_not(None),
        log.c.timestamp >= since,
        log.c.timestamp < until,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
