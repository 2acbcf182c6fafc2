# SPDX-License-Identifier: Apache-2.0
"""From a raw score to how rare it is: the prior table first, then what tenant and peer group have shown."""

import math
from array import array
from collections.abc import Sequence

LEVELS = [
    -math.log(survival) for survival in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002)
]
MOST_SURPRISE = 20.0
BINS = 81
BINS_PER_NAT = 4
FULL = 8000  # samples
PRIOR_STRENGTH = 1000.0  # samples
TENANT_STRENGTH = 300.0  # samples
RARE = 4.6  # nats
RARE_ONCE = 600.0  # s
RARE_FROM = 300  # samples


def prior_surprise(table: Sequence[float], score: float) -> float:
    """-ln of the share of ordinary calls elsewhere that score higher. `table`: scores at LEVELS."""
    if score <= table[0]:
        return LEVELS[0] * max(0.0, score / table[0]) if table[0] > 0 else 0.0
    for i in range(1, len(table)):
        if score <= table[i]:
            part = (score - table[i - 1]) / (table[i] - table[i - 1])
            return LEVELS[i - 1] + (LEVELS[i] - LEVELS[i - 1]) * part
    per_nat = max(0.15 * table[-1] / LEVELS[-1], (table[-1] - table[-4]) / (LEVELS[-1] - LEVELS[-4]))
    return min(MOST_SURPRISE, LEVELS[-1] + (score - table[-1]) / per_nat)


class Calibrator:
    """How many of the last few thousand prior surprises were larger."""

    def __init__(self) -> None:
        self.above = array("f", bytes(4 * BINS))  # by bin: samples in higher bins
        self.samples = array("f", bytes(4))
        self.halved = 0

    @property
    def size(self) -> float:
        return self.samples[0]

    def share_above(self, surprise: float, parent: float, strength: float) -> float:
        """0..1, shrunk with `strength` samples to the share `parent`. Samples spread evenly in a bin."""
        bin_ = min(BINS - 1, int(surprise * BINS_PER_NAT))
        above = self.above[bin_]
        inside = (self.samples[0] if bin_ == 0 else self.above[bin_ - 1]) - above
        part = 1 - (surprise * BINS_PER_NAT - bin_) if bin_ < BINS - 1 else 0.5
        share = (above + inside * part + strength * parent) / (self.samples[0] + strength)
        assert 0 < share <= 1 + 1e-12
        return share

    def learn(self, surprise: float) -> None:
        for bin_ in range(min(BINS - 1, int(surprise * BINS_PER_NAT))):
            self.above[bin_] += 1
        self.samples[0] += 1
        if self.samples[0] > FULL:
            self.above = array("f", [count / 2 for count in self.above])
            self.samples[0] /= 2
            self.halved += 1
