"""How thoroughly to measure: what every scenario is given.

Owns that alone. Must not know any scenario.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run of the benchmark: `quick` to see that it works, `full` for figures to publish, else something between."""

    quick: bool = False
    full: bool = False
    seed: int = 64  # of every choice left to chance: payloads, and the order of turns

    def rounds(self, usual: int, fewest: int = 5) -> int:
        """Return how many rounds to take where `usual` is what serves to look at."""
        factor = 0.1 if self.quick else 5 if self.full else 1
        return max(fewest, round(usual * factor))
