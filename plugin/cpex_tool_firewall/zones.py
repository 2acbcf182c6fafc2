# SPDX-License-Identifier: Apache-2.0
"""Time zones as plain numbers: when each UTC offset of an IANA zone begins.

The engine knows no time zone database; it gets these tables. The data comes from the system, else from the
tzdata package.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

FIRST_YEAR = 1990
LAST_YEAR = 2045

_DAY = 86_400
_START = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
_END = int(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp())


class ZoneError(ValueError):
    """No such time zone. The text names it and what is accepted."""


def offsets(zone: str) -> list[tuple[float, int]]:
    """The UTC offsets of an IANA zone: (from, offset), both in seconds, `from` since the epoch and ascending.

    Covers 1990 to 2045: the first offset also holds before, the last one after. Raises ZoneError.
    """
    return list(_offsets(zone))


def tables(zones: Iterable[str]) -> dict[str, list[tuple[float, int]]]:
    """offsets() of several zones by name, each once. Raises ZoneError."""
    return {zone: offsets(zone) for zone in dict.fromkeys(zones)}


@lru_cache(maxsize=1024)
def _offsets(zone: str) -> tuple[tuple[float, int], ...]:
    try:
        info = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ZoneError(
            f"unknown time zone {zone!r}; accepted: IANA names such as UTC or Europe/Berlin"
        ) from error

    def offset_at(moment: int) -> int:
        offset = datetime.fromtimestamp(moment, info).utcoffset()
        return int(offset.total_seconds()) if offset is not None else 0

    current = offset_at(_START)
    found = [(float(_START), current)]
    # No zone changes twice within a day, so a change shows between two midnights and is then narrowed to
    # its second.
    for day in range(_START + _DAY, _END + 1, _DAY):
        if offset_at(day) == current:
            continue
        before, after = day - _DAY, day
        while after - before > 1:
            middle = (before + after) // 2
            if offset_at(middle) == current:
                before = middle
            else:
                after = middle
        current = offset_at(after)
        found.append((float(after), current))
    return tuple(found)
