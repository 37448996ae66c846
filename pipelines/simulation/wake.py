"""Wake: does a sound mean the assistant? A score from 0 to 1, and a threshold.

Every source of sound has a distribution of evidence, and they overlap: a television now and then sounds like
the wake word, and a user who mumbles from the next room does not. What stays under the threshold is not logged.
"""

from __future__ import annotations

import math
import random

THRESHOLD = 0.5
_EVIDENCE: dict[str, tuple[float, float]] = {
    "user": (1.9, 1.3),
    "conversation": (-0.9, 1.6),
    "television": (-1.2, 1.6),
    "radio": (-1.4, 1.6),
    "noise": (-2.2, 1.6),
}
"""Mean and standard deviation of the log-odds, by source."""
_DISTANCE = 0.35
"""Log-odds that a unit of difficulty of the sound costs."""


def score(source: str, difficulty: float, rng: random.Random) -> float:
    """How sure the detector is that it was called, 0 to 1. `difficulty` as in `asr.Recogniser.hear`."""
    mean, spread = _EVIDENCE[source]
    return 1.0 / (1.0 + math.exp(-rng.gauss(mean - _DISTANCE * difficulty, spread)))


def waking_score(source: str, difficulty: float, rng: random.Random) -> float:
    """The score of a sound that does wake the assistant: its source makes sounds until one does."""
    while True:
        found = score(source, difficulty, rng)
        if found >= THRESHOLD:
            return found
