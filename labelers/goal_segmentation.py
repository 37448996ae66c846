"""Goal segmentation: which turns belong to which goal; goals may interleave.

Each turn either opens a goal or continues the goal of an earlier turn. Training maximises the probability of
all earlier turns of the same goal together (Lee et al. 2017), since any of them is a right answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from labelers.base import IGNORE, Encoded, Labeler, LabelerConfig
from labelers.pairs import PairScorer
from schemas.labels import Label
from schemas.log import Dialogue

BACK = 12
"""How many turns back a goal can be resumed."""


class GoalTurn(NamedTuple):
    """The decision for one turn."""

    goal: int
    """number of the goal in its dialogue, from 0, in order of first turns"""
    is_start: bool
    abstained: bool


class GoalSegmentation(Labeler):
    """(N, D) → (N, BACK + 1)."""

    label = Label.GOAL
    positive = slice(0, 1)
    """that a goal starts"""

    def __init__(self, config: LabelerConfig) -> None:
        super().__init__()
        self.scorer = PairScorer(config.width, BACK, config.dropout)

    def logits(self, encoded: Encoded) -> Tensor:
        return self.scorer(encoded)  # type: ignore[no-any-return]

    def targets(self, encoded: Encoded) -> Tensor:
        """(N,): 0 if the turn opens a goal, else how far back the goal's last turn is. A dialogue's first turn
        always opens one: nothing to learn from it."""
        targets: list[int] = []
        for dialogue in encoded.dialogues:
            last: dict[str | None, int] = {}
            for index, goal in enumerate(annotated_goals(dialogue)):
                back = index - last.get(goal, index)
                known = index > 0 and goal is not None and back <= BACK
                targets.append(back if known else IGNORE)
                last[goal] = index
        return torch.tensor(targets, device=encoded.states.device)

    def loss(self, encoded: Encoded) -> Tensor:
        right: list[list[bool]] = []
        for dialogue in encoded.dialogues:
            goals = annotated_goals(dialogue)
            seen: set[str | None] = set()
            for index, goal in enumerate(goals):
                same = [index - k >= 0 and goals[index - k] == goal for k in range(1, BACK + 1)]
                known = index > 0 and goal is not None
                right.append([known and goal not in seen, *(known and each for each in same)])
                seen.add(goal)
        answers = torch.tensor(right, device=encoded.states.device)  # (N, BACK + 1)
        asked = answers.any(dim=-1)
        if not bool(asked.any()):
            return encoded.states.sum() * 0.0
        scores = torch.log_softmax(self.logits(encoded).float(), dim=-1)[asked]
        return -scores.masked_fill(~answers[asked], float("-inf")).logsumexp(dim=-1).mean()

    def decode(self, encoded: Encoded) -> list[list[GoalTurn]]:
        """For each dialogue one decision a turn."""
        probabilities = self.probabilities(self.logits(encoded)).cpu()
        decision, threshold = float(self.decision), float(self.threshold)
        decided: list[list[GoalTurn]] = []
        for first, dialogue in zip(encoded.first, encoded.dialogues, strict=True):
            turns: list[GoalTurn] = []
            count = 0
            for index, row in enumerate(probabilities[first : first + len(dialogue.turns)].tolist()):
                by_goal: dict[int, float] = {}
                for back in range(1, min(index, BACK) + 1):
                    goal = turns[index - back].goal
                    by_goal[goal] = by_goal.get(goal, 0.0) + row[back]
                best = max(by_goal, key=lambda goal: by_goal[goal], default=None)
                if best is None or row[0] >= decision:
                    # A dialogue's first turn opens a goal whatever the scores.
                    confidence = row[0] if index else 1.0
                    turns.append(GoalTurn(count, True, confidence < threshold))
                    count += 1
                else:
                    turns.append(GoalTurn(best, False, by_goal[best] < threshold))
            decided.append(turns)
        return decided


def annotated_goals(dialogue: Dialogue) -> list[str | None]:
    """The annotated goal of each turn."""
    return [turn.annotation.goal_id if turn.annotation else None for turn in dialogue.turns]
