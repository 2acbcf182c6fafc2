# SPDX-License-Identifier: Apache-2.0
"""Time zone tables: daylight saving to the second, odd zones, names that do not exist."""

import bisect
import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from cpex_tool_firewall.zones import ZoneError, offsets, tables


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def offset_at(table: list[tuple[float, int]], moment: float) -> int:
    index = bisect.bisect_right(table, moment, key=lambda entry: entry[0]) - 1
    return table[max(index, 0)][1]


@pytest.mark.parametrize(
    ("zone", "moment", "before", "after"),
    [
        ("Europe/Berlin", "2026-03-29 01:00:00", 3600, 7200),
        ("Europe/Berlin", "2026-10-25 01:00:00", 7200, 3600),
        ("America/New_York", "2026-03-08 07:00:00", -18000, -14400),
        ("America/New_York", "2026-11-01 06:00:00", -14400, -18000),
        ("Australia/Lord_Howe", "2026-04-04 15:00:00", 39600, 37800),  # half an hour
        ("Pacific/Apia", "2011-12-30 10:00:00", -36000, 50400),  # skipped a whole day
    ],
)
def test_changes_are_exact_to_the_second(zone: str, moment: str, before: int, after: int) -> None:
    table, at = offsets(zone), stamp(moment)
    assert (at, after) in table
    assert offset_at(table, at - 1) == before
    assert offset_at(table, at) == after


def test_utc_has_one_entry() -> None:
    assert offsets("UTC") == [(stamp("1990-01-01"), 0)]


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin",
        "America/New_York",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "America/Sao_Paulo",
        "Asia/Gaza",
    ],
)
def test_tables_agree_with_the_zone_database_at_any_moment(zone: str) -> None:
    table, info, chance = offsets(zone), ZoneInfo(zone), random.Random(1)
    assert [moment for moment, _ in table] == sorted({moment for moment, _ in table})
    for _ in range(5000):
        moment = chance.uniform(stamp("1990-01-01"), stamp("2045-12-31"))
        offset = datetime.fromtimestamp(moment, info).utcoffset()
        assert offset is not None
        assert offset_at(table, moment) == offset.total_seconds(), datetime.fromtimestamp(moment, UTC)


def test_the_machines_own_zone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert offset_at(offsets("Europe/Berlin"), stamp("2026-07-01")) == 7200


@pytest.mark.parametrize(
    "name", ["Europe/Berlln", "", "../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 300]
)
def test_unknown_zones_are_named(name: str) -> None:
    with pytest.raises(ZoneError, match=r"unknown time zone .*IANA"):
        offsets(name)


def test_callers_cannot_spoil_the_cache() -> None:
    offsets("UTC").clear()
    assert offsets("UTC")


def test_tables_of_several_zones() -> None:
    assert tables(["UTC", "Europe/Berlin", "UTC"]) == {
        "UTC": offsets("UTC"),
        "Europe/Berlin": offsets("Europe/Berlin"),
    }
