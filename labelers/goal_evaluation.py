"""Goal evaluation: was a goal reached (success) or not (defect).

- A goal is the mean and the maximum over its turns' states, and the state of its last turn.
- A dialogue succeeds when all of its goals do: its log-probability is the sum of theirs. A dialogue whose success
  is annotated as a whole trains its goals through that sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from labelers.base import IGNORE, Encoded, Labeler, LabelerConfig, mlp
from labelers.goal_segmentation import annotated_goals
from schemas.labels import Label
from schemas.log import Dialogue


class SuccessLabel(NamedTuple):
    """The decision for one goal or dialogue."""

    success: bool
    confidence: float
    """probability of the decision"""
    probability: float
    """probability of success"""
    abstained: bool


class GoalEvaluation(Labeler):
    """(N, D) → (G, 2) over the G goals of all dialogues; column 1 is success."""

    label = Label.SUCCESS

    def __init__(self, config: LabelerConfig) -> None:
        super().__init__()
        self.score = mlp(3 * config.width, config.width, 2, config.dropout)

    def goal_logits(self, encoded: Encoded, goals: Sequence[Sequence[int]]) -> Tensor:
        """(G, 2); `goals` are the flat positions of each goal's turns."""
        states = encoded.states
        turns = torch.tensor([turn for goal in goals for turn in goal], device=states.device)
        lengths = torch.tensor([len(goal) for goal in goals], device=states.device)
        ends = lengths.cumsum(0)
        mean, most = (functional.embedding_bag(turns, states, ends - lengths, mode=mode) for mode in ("mean", "max"))
        return self.score(torch.cat([mean, most, states[turns[ends - 1]]], dim=-1))  # type: ignore[no-any-return]

    def logits(self, encoded: Encoded) -> Tensor:
        return self.goal_logits(encoded, [turns for _, _, turns in _annotated(encoded)])

    def targets(self, encoded: Encoded) -> Tensor:
        """(G,) for the annotated goals; a dialogue of one goal lends it its own annotation."""
        targets = []
        for dialogue, goal, turns in _annotated(encoded):
            success = _goal_success(dialogue, goal, alone=len(turns) == len(dialogue.turns))
            targets.append(IGNORE if success is None else int(success))
        return torch.tensor(targets, device=encoded.states.device)

    def loss(self, encoded: Encoded) -> Tensor:
        goals = _annotated(encoded)
        targets = self.targets(encoded)
        logits = self.logits(encoded).float()
        known = targets != IGNORE
        losses = [functional.cross_entropy(logits[known], targets[known], reduction="none")] if known.any() else []
        whole = _whole_dialogues(goals, targets.tolist())
        if whole:
            reached = torch.log_softmax(logits, dim=-1)[:, 1]
            together = torch.stack([reached[rows].sum() for rows, _ in whole]).clamp(max=-1e-6)
            success = torch.tensor([each for _, each in whole], device=logits.device)
            losses.append(-torch.where(success, together, torch.log(-torch.expm1(together))))
        return torch.cat(losses).mean() if losses else encoded.states.sum() * 0.0

    def decode(self, encoded: Encoded, goals: Sequence[Sequence[Sequence[int]]]) -> list[list[SuccessLabel]]:
        """For each dialogue one decision a goal; `goals` are, by dialogue, the flat positions of its turns."""
        flat = [turns for dialogue in goals for turns in dialogue]
        decided = iter(self.decide(self.probabilities(self.goal_logits(encoded, flat))[:, 1].tolist()))
        return [[next(decided) for _ in dialogue] for dialogue in goals]

    def decide(self, probabilities: Iterable[float]) -> list[SuccessLabel]:
        """The decision at each probability of success."""
        threshold = float(self.threshold)
        sure = ((each, max(each, 1 - each)) for each in probabilities)
        return [SuccessLabel(each >= 0.5, confidence, each, confidence < threshold) for each, confidence in sure]


def _annotated(encoded: Encoded) -> list[tuple[Dialogue, str, list[int]]]:
    """Every annotated goal with its flat positions; a dialogue without annotated goals is one goal."""
    found = []
    for first, dialogue in zip(encoded.first, encoded.dialogues, strict=True):
        goals: dict[str, list[int]] = {}
        for index, goal in enumerate(annotated_goals(dialogue)):
            goals.setdefault(goal or "", []).append(first + index)
        found += [(dialogue, goal, turns) for goal, turns in goals.items()]
    return found


def _goal_success(dialogue: Dialogue, goal: str, *, alone: bool) -> bool | None:
    """What is annotated of a goal; `alone` says that the dialogue has no other."""
    annotation = dialogue.annotation
    if annotation is None:
        return None
    known = next((each.success for each in annotation.goals or [] if each.goal_id == goal), None)
    return annotation.success if known is None and alone else known


def _whole_dialogues(goals: list[tuple[Dialogue, str, list[int]]], targets: list[int]) -> list[tuple[list[int], bool]]:
    """Rows of the goals of each dialogue that is annotated only as a whole, with its success."""
    rows: dict[int, list[int]] = {}
    for row, (dialogue, _, _) in enumerate(goals):
        rows.setdefault(id(dialogue), []).append(row)
    whole = []
    for of_dialogue in rows.values():
        annotation = goals[of_dialogue[0]][0].annotation
        if annotation and annotation.success is not None and all(targets[row] == IGNORE for row in of_dialogue):
            whole.append((of_dialogue, annotation.success))
    return whole
