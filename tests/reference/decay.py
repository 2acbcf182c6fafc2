# SPDX-License-Identifier: Apache-2.0
"""Counts that fade: forward decay, with the sums kept as 32-bit floats."""

import math
import struct
from collections.abc import Hashable

HALF_LIVES_PER_EPOCH = 20.0
MOST_DOUBTFUL = 0.5  # half-lives
MOST_UNSEEN = 2.0  # half-lives
FORGOTTEN = 1e-6  # what is left of an event of weight 1 after one epoch is just below

_FLOAT = struct.Struct("f")


def float32(value: float) -> float:
    """The nearest 32-bit float."""
    found: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    return found


class Decay:
    """An event at time t weighs 2^((t - landmark) / half_life) for ever; readers divide by the weight of now.

    Landmarks lie 20 half-lives apart, whoever called first; when a call passes the next, an epoch begins. A
    time more than 20 half-lives before the landmark counts as 20: weights divide, so none may vanish.

    Weights take the time of faded(), which leaves out what nobody saw when clocks jumped.
    """

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life  # s
        self.landmark: float | None = None
        self.epoch = 0
        self.shift = 0.0  # s

    def faded(self, own: float, newest: float) -> float:
        """The time to weigh a call by, in s; half a half-life off the newest time believed at the most."""
        most = MOST_DOUBTFUL * self.half_life
        return min(max(own, newest - most), newest + most) - self.shift

    def jump(self, from_: float, to: float) -> None:
        """The time believed jumped: forward it fades counts by two half-lives at the most, back by none."""
        before = from_ - self.shift
        self.shift = to - min(max(to, before - self.half_life), before + MOST_UNSEEN * self.half_life)

    def weight(self, now: float) -> float:
        apart = HALF_LIVES_PER_EPOCH * self.half_life
        if self.landmark is None:
            self.landmark = math.floor(now / apart) * apart
        age = max(-HALF_LIVES_PER_EPOCH, (now - self.landmark) / self.half_life)
        if age <= HALF_LIVES_PER_EPOCH:
            return math.exp2(age)
        epochs = math.floor(age / HALF_LIVES_PER_EPOCH)
        self.epoch += epochs
        self.landmark += epochs * apart
        return math.exp2(age - epochs * HALF_LIVES_PER_EPOCH)


class Counts:
    """Fading sums by key, and how many distinct kinds of thing each row has seen (those never fade)."""

    def __init__(self) -> None:
        self.sums: dict[Hashable, float] = {}
        self.types: dict[Hashable, int] = {}
        self.epoch = 0

    def get(self, key: Hashable) -> float:
        """The stored sum, to be divided by the weight of now; 0 for what was never seen or is forgotten."""
        return self.sums.get(key, 0.0)

    def add(self, key: Hashable, weight: float) -> None:
        self.sums[key] = float32(self.get(key) + float32(weight))

    def add_outcome(self, row: Hashable, cell: Hashable, weight: float) -> None:
        """One more event `cell` in `row`."""
        if cell not in self.sums:
            self.types[row] = self.types.get(row, 0) + 1
        self.add(cell, weight)
        self.add(row, weight)

    def refresh(self, decay: Decay) -> None:
        """Restates the sums for the present epoch, and forgets what has become too small."""
        if self.epoch == decay.epoch:
            return
        factor = math.exp2(-HALF_LIVES_PER_EPOCH * (decay.epoch - self.epoch))
        scaled = {key: float32(value * factor) for key, value in self.sums.items()}
        self.sums = {key: value for key, value in scaled.items() if value >= float32(FORGOTTEN)}
        self.epoch = decay.epoch
