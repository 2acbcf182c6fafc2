# SPDX-License-Identifier: Apache-2.0
"""How often something happens, remembered over about the last so many times."""

from dataclasses import dataclass

from .decay import float32


@dataclass
class Rate:
    """A share, divided back beyond its window; two 32-bit floats."""

    window: float
    hits: float = 1.0
    total: float = 2.0

    def learn(self, hit: bool) -> None:
        fade = self.window / (self.total + 1) if self.total > self.window else 1.0
        self.hits = float32(self.hits * fade + hit)
        self.total = float32(self.total * fade + 1)

    @property
    def value(self) -> float:
        return self.hits / self.total
