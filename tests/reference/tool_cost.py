# SPDX-License-Identifier: Apache-2.0
"""What calls of a tool usually cost, in whole small units: the engine has 22 bits for it."""

import math
from dataclasses import dataclass

SHRINK = 2.0  # calls
UNIT = 2**-16  # of ln cost
LEAST = -32.0  # ln of the smallest cost that counts
MOST_UNITS = 2**22 - 1


@dataclass
class ToolCost:
    calls: int = 0
    units: int = 0  # of the mean of ln cost, above LEAST

    @property
    def mean(self) -> float:
        return self.units * UNIT + LEAST

    def shrunk(self, all_: float) -> float:
        """The mean, shrunk to that of all tools."""
        own = self.calls * self.mean if self.calls else 0.0
        return (own + SHRINK * all_) / (self.calls + SHRINK)

    def learn(self, ln_cost: float, most: int) -> None:
        self.calls = min(self.calls + 1, most)
        mean = self.mean + (ln_cost - self.mean) / self.calls
        self.units = min(MOST_UNITS, max(0, math.floor((mean - LEAST) / UNIT + 0.5)))
