# SPDX-License-Identifier: Apache-2.0
"""What a session remembers of its last calls to see that they come round."""

from dataclasses import dataclass, field

LONGEST_CYCLE = 4  # calls


@dataclass
class Loop:
    """Of a session: the last calls, and how often they came round."""

    digests: list[str | None] = field(default_factory=list)  # newest first, at most LONGEST_CYCLE
    runs: list[int] = field(default_factory=lambda: [0] * LONGEST_CYCLE)  # by length of the cycle
    failures: float = 0.0
    busy: float | None = None  # s, when a call last began or ended

    @property
    def repeats(self) -> int:
        return max(self.runs)

    def forget(self) -> None:
        self.digests, self.runs, self.failures = [], [0] * LONGEST_CYCLE, 0.0

    def count(self, digest: str | None) -> None:
        """What cannot be read repeats nothing."""
        for back in range(LONGEST_CYCLE):
            same = digest is not None and back < len(self.digests) and self.digests[back] == digest
            self.runs[back] = self.runs[back] + 1 if same else 0
        self.digests = [digest, *self.digests][:LONGEST_CYCLE]
