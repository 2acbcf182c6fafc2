# SPDX-License-Identifier: Apache-2.0
"""How often calls really reached a risk, beside how often ordinary calls should.

Counted from the records of calls and of their ends. A call counts with the larger of its two risks. Imported
history was never scored and does not count; nor do calls under a snooze, which somebody said are unusual.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Band:
    """A risk, and the share of ordinary calls that should reach it."""

    risk: float
    nominal: float
    shown: str


BANDS: Final = (Band(1 / 3, 1e-2, "1/3"), Band(0.5, 1e-3, "0.5"), Band(0.667, 1e-4, "0.667"))

_MOST_RUNNING: Final = 65_536  # calls whose end may still come
_EXPECTED: Final = 5.0  # calls at the nominal rate, to say that a rate is as it should be
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `of`, with a 95 % interval."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """0 to 1; 0 of nothing is 0."""
        return self.hits / self.of if self.of else 0.0

    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (E. B. Wilson, JASA 22, 1927; for small counts recommended by Brown, Cai
        and DasGupta, Statistical Science 16, 2001). 0 to 1 of nothing.
        """
        if not self.of:
            return 0.0, 1.0
        z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
        shrink = 1 + z * z / self.of
        middle = (self.value + z * z / (2 * self.of)) / shrink
        half = z * math.sqrt(self.value * (1 - self.value) / self.of + (z / (2 * self.of)) ** 2) / shrink
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def against(self, nominal: float) -> str:
        """above | below | as nominal | too few calls: what the interval says of a nominal rate."""
        low, high = self.interval()
        if low > nominal:
            return "above"
        if high < nominal:
            return "below"
        return "as nominal" if self.of * nominal >= _EXPECTED else "too few calls"


def calls_needed(nominal: float) -> int:
    """How many calls there must be before Share.against() can say that a rate is as nominal."""
    return round(_EXPECTED / nominal)


@dataclass(slots=True)
class _Counts:
    calls: int = 0
    reached: list[int] = field(default_factory=lambda: [0] * len(BANDS))


class FalseAlarms:
    """Takes decoded records in the order of the journal."""

    def __init__(self) -> None:
        self.snoozed = 0  # calls left out
        self.history = 0  # imported calls, left out
        self.first = math.inf  # seconds since the epoch, of the calls that count
        self.last = -math.inf
        self._everybody = _Counts()
        self._tenants: dict[str, _Counts] = {}
        self._running: OrderedDict[tuple[int, int], tuple[str, int]] = OrderedDict()  # tenant, bands reached
        self._followed: dict[int, int] = {}  # the last number of each worker

    def add(self, fields: Mapping[str, Any]) -> None:
        """A call or the end of one; anything else is passed over."""
        if fields["kind"] == "call":
            self._call(fields)
        elif fields["kind"] == "outcome":
            tenant, before = self._running.pop((fields["worker"], fields["seq"]), ("", len(BANDS)))
            self._reach(tenant, before, _bands(fields["risk"]))

    @property
    def calls(self) -> int:
        """How many count."""
        return self._everybody.calls

    def tenants(self) -> list[str]:
        """Those with calls, the busiest first."""
        return sorted(self._tenants, key=lambda tenant: (-self._tenants[tenant].calls, tenant))

    def shares(self, tenant: str | None = None) -> list[Share]:
        """For each of BANDS, the calls that reached it; None: of everybody."""
        counts = self._everybody if tenant is None else self._tenants.get(tenant, _Counts())
        return [Share(reached, counts.calls) for reached in counts.reached]

    def _call(self, fields: Mapping[str, Any]) -> None:
        if fields["seq"] <= self._followed.get(fields["worker"], 0):
            return  # stored twice after a fault
        self._followed[fields["worker"]] = fields["seq"]
        if not fields["incident"]:
            self.history += 1
            return
        if fields["snoozed"]:
            self.snoozed += 1
            return
        tenant, ts = fields["tenant"], fields["ts"]
        self.first, self.last = min(self.first, ts), max(self.last, ts)
        for counts in (self._everybody, self._tenants.setdefault(tenant, _Counts())):
            counts.calls += 1
        reached = _bands(fields["risk"])
        self._reach(tenant, 0, reached)
        if not fields["blocked"]:
            self._running[fields["worker"], fields["seq"]] = tenant, reached
            if len(self._running) > _MOST_RUNNING:
                self._running.popitem(last=False)

    def _reach(self, tenant: str, before: int, now: int) -> None:
        for band in range(before, now):
            self._everybody.reached[band] += 1
            self._tenants[tenant].reached[band] += 1


def _bands(risk: float) -> int:
    """How many of BANDS a risk reaches."""
    return sum(risk >= band.risk for band in BANDS)
