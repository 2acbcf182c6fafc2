# SPDX-License-Identifier: Apache-2.0
"""One risk from the rarities of all channels: a truncated, capped, weighted sum, or one specialist."""

import itertools
import math
from dataclasses import dataclass

NOTABLE = 1 / 3
HIGH_RISK = 0.5
CAP = 5.5
TRUNCATED = 1.6
MAP = ((0.0, 0.0), (7.5, 0.116), (10.7, 0.217), (15.4, 1 / 3), (22.5, 0.5), (34.0, 0.667), (60.0, 1.0))


@dataclass(frozen=True)
class Channel:
    """One calibrated number of a signal."""

    name: str
    prior: tuple[float, ...]
    weight: float = 0.0
    alone_group: float = 0.0  # as a specialist: times its -ln p in the peer group
    alone_tenant: float = 0.0  # ... and in the tenant
    strength: float = 1.0  # how many times the usual samples its prior and its tenant count
    supported: float = 0.0  # as a specialist: how much of the sum of the others comes on top


def share(weight: float, surprise: float) -> float:
    """What a channel adds to the sum. `surprise`: -ln p in the peer group."""
    return weight * (min(CAP, surprise) - TRUNCATED / 2) if surprise > TRUNCATED else 0.0


def risk_of(evidence: float) -> float:
    for (low, risk_low), (high, risk_high) in itertools.pairwise(MAP):
        if evidence < high:
            return risk_low + (risk_high - risk_low) * (evidence - low) / (high - low)
    return 1.0


def surprise_of_floor(floor: float) -> float:
    """-ln p of a risk that a signal insists on, by the meaning of the bands: risk = -log10(p) / 6."""
    return floor * 6 * math.log(10)
