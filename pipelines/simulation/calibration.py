"""From the failure rates that are asked for to the knobs of a world in which they come out.

Stages work on each other's output, so no rate has a knob to itself. A pilot simulation measures how often each
stage fails, the knobs are turned by what is lacking, and so on a few times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pipelines.simulation.assistant import Assistant
from pipelines.simulation.dialogue import Knobs, simulate
from schemas.log import Dialogue, FailurePoint

STAGES = (FailurePoint.WAKE, FailurePoint.ASR, FailurePoint.NLU, FailurePoint.ER, FailurePoint.RESULT)
DEFAULT_RATES: Mapping[FailurePoint, float] = {
    FailurePoint.WAKE: 0.03,
    FailurePoint.ASR: 0.09,
    FailurePoint.NLU: 0.06,
    FailurePoint.ER: 0.04,
    FailurePoint.RESULT: 0.03,
}
"""Share of turns whose failure point each stage is."""
TELEPHONE = 0.25
"""Share of dialogues that are telephone calls."""
MOST = 0.25
"""A rate beyond this cannot be had of every stage."""
_START = (0.1, 0.7, 0.06, 0.3, 0.05)
"""Knobs at the default rates, about."""
_LARGEST = (0.6, 4.0, 0.9, 0.95, 0.9)
_ROUNDS = 5
_PILOT = 600
"""Dialogues of a round."""
_PILOT_SEED = -1


def calibrate(assistant: Assistant, rates: Mapping[FailurePoint, float], telephone: float) -> Knobs:
    """The knobs at which each stage fails in about its share of the turns. A rate of 0 makes the stage perfect.

    `telephone`: share of dialogues that are telephone calls.
    """
    values = [
        start * min(rates[stage] / DEFAULT_RATES[stage], 4.0) for stage, start in zip(STAGES, _START, strict=True)
    ]
    for round_number in range(_ROUNDS):
        knobs = Knobs(*(*values, telephone))
        pilot = (simulate(assistant, knobs, _PILOT_SEED, round_number * _PILOT + each) for each in range(_PILOT))
        measured = failure_rates(pilot)
        for number, stage in enumerate(STAGES):
            # Half the way each time: a pilot is small, and the other knobs turn, too.
            ratio = (rates[stage] + 0.002) / (measured.get(stage, 0.0) + 0.002)
            values[number] = min(values[number] * ratio**0.7, _LARGEST[number])
    return Knobs(*(*values, telephone))


def failure_rates(dialogues: Iterable[Dialogue]) -> dict[FailurePoint, float]:
    """The share of turns with each failure point."""
    counts = Counter(
        turn.annotation.failure_point for dialogue in dialogues for turn in dialogue.turns if turn.annotation
    )
    total = sum(counts.values())
    return {point: count / total for point, count in counts.items() if point is not None}
