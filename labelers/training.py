"""How a model is trained and calibrated; knows nothing of files, logs or options.

- Multi-task: the weighted sum of every labeler's loss; a labeler without annotated questions in a batch adds 0
  (`labelers.learning` says how it is learned).
- Turns without an annotated failure point can have a noisy target, learned from feedback (`labelers.label_model`):
  they add a further term to the loss of the failure point, with a weight of their own.
- Calibration: one temperature a labeler (Guo et al. 2017, arXiv:1706.04599), with the least loss as a mean over the
  sources; the point of decision, of a labeler that has one: the best F1 of its positive answers, as a mean over the
  sources, too; and the threshold below which a labeler abstains: the lowest confidence at which what is kept has the
  asked-for precision.
- Where no failure point is annotated, feedback still says how many turns failed, and which these likely are: their
  temperature and point of decision are those with the least loss and the best F1 against the noisy targets.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from labelers import slots
from labelers.base import IGNORE, Encoded, EncodedOntology, Labeler, positives
from labelers.evidence import Lesson
from labelers.failure_point import POINTS, FailurePointLabeler
from labelers.learning import Learner, LearningConfig, Source, Step
from labelers.model import GROUP_TURNS, Model, groups
from schemas.labels import Label
from schemas.log import Dialogue

NAMES_EVERY = 20
"""Steps after which the vectors of an ontology's names are computed again."""

NEVER = 2.0
"""Threshold of a labeler that is not to be trusted at any confidence."""

_DECISIONS = torch.linspace(0.1, 0.9, 81)
"""Points of decision to choose from."""
_TEMPERATURES = torch.logspace(math.log10(0.3), math.log10(4), 60)
"""Temperatures to choose from."""

FEWEST_VOTED = 100
"""Turns with a noisy target without which nothing is calibrated by these."""

FEEDBACK = "feedback"
"""The loss of the noisy targets."""

LOSS_WEIGHTS = {
    Label.FAILURE_POINT: 1.0,
    Label.INTENT: 0.4,
    Label.SLOTS: 0.4,
    Label.GOAL: 0.4,
    Label.SUCCESS: 0.4,
    Label.REPHRASE: 0.3,
}


@dataclass(frozen=True)
class TrainingConfig(LearningConfig):
    """How to learn, and to be calibrated."""

    missing: float = 0.15
    """share of the dialogues of which a kind of field is hidden, so that the model copes without it"""
    precision: float = 0.9
    """of what a labeler does not abstain from, on the validation part"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.missing < 1 or not 0 < self.precision < 1:
            raise ValueError("missing must be in [0, 1), precision in (0, 1)")


def noisy_targets(
    model: Model, dialogues: Sequence[Dialogue], defects: Sequence[npt.NDArray[np.float64]], *, anew: bool
) -> list[npt.NDArray[np.float64]]:
    """For each dialogue (turns, 6), in the order of `POINTS`: P(correct) and the share of each component in P(defect).

    `defects` is for each dialogue (turns,) P(defect), NaN where there is none: so is then the row. Feedback tells that
    something failed, and never what: the components share P(defect) as the model, before it is trained on, has it, or
    training would give all of it to one of them. A model that has learned no label yet (`anew`) leaves it open, by
    shares of 0.
    """
    targets = [np.column_stack([1 - each, *[each * 0.0] * (len(POINTS) - 1)]) for each in defects]
    if not anew:
        known = [number for number, each in enumerate(defects) if np.isfinite(each).any()]
        for number, labels in zip(known, model.label([dialogues[number] for number in known]), strict=True):
            found = [[turn.failure_point_probabilities[point] for point in POINTS[1:]] for turn in labels.turns]
            # One can have underflowed.
            components = np.maximum(np.array(found), np.finfo(np.float32).tiny)
            shares = components / components.sum(axis=1, keepdims=True)
            targets[number][:, 1:] = defects[number][:, None] * shares
    return targets


def fit_evidence(model: Model, sources: Sequence[Source], config: TrainingConfig, *, anew: bool) -> None:
    """Trains what is trained by itself, before the rest (`labelers.evidence`); from logs of which fields are hidden,
    too. `anew` is for a model that has learned no label yet."""
    rng = random.Random(config.seed)
    lessons = []
    for source in sources:
        none = (np.full((len(dialogue.turns), len(POINTS)), np.nan) for dialogue in source.dialogues)
        for dialogue, targets in zip(source.dialogues, source.targets or none, strict=True):
            # As it is, and with a kind of field hidden, in the shares in which the rest of the training sees them.
            for shown, share in ((dialogue, 1 - config.missing), (hide(dialogue, rng), config.missing)):
                lessons.append(Lesson(shown, source.passes * share, targets, source.feedback_weight))
    model.failure_point.fit_evidence(lessons, config.seed, anew=anew)


class Trainer(Learner):
    """Trains a model step by step."""

    config: TrainingConfig

    def __init__(self, model: Model, sources: Sequence[Source], config: TrainingConfig) -> None:
        super().__init__(model, sources, config)
        self._names: dict[int, EncodedOntology] = {}

    def losses(self, step: Step, rng: random.Random) -> dict[str, tuple[float, Tensor]]:
        """Of every labeler, by its label, and, where the source has noisy targets, `FEEDBACK`."""
        source = self.sources[step.source]
        dialogues = [
            hide(source.dialogues[index], rng) if rng.random() < self.config.missing else source.dialogues[index]
            for index in step.dialogues
        ]
        if self.step % NAMES_EVERY == 0:
            self._names.clear()
        if step.source not in self._names:
            with torch.no_grad(), self.autocast():
                self._names[step.source] = self.model.encode_ontology(source.ontology)
        with self.autocast():
            encoded = self.model.encode(dialogues, self._names[step.source])
            losses: dict[str, tuple[float, Tensor]] = {
                label: (LOSS_WEIGHTS[label], labeler.loss(encoded)) for label, labeler in self.model.labelers.items()
            }
            if source.targets:
                targets = torch.from_numpy(np.concatenate([source.targets[index] for index in step.dialogues])).float()
                loss = self.model.failure_point.feedback_loss(encoded, targets.to(self.model.device))
                losses[FEEDBACK] = (LOSS_WEIGHTS[Label.FAILURE_POINT] * source.feedback_weight, loss)
        return losses

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: tensors and plain values only."""
        names = {number: (each.intent_vectors, each.slot_vectors) for number, each in self._names.items()}
        return {**super().state(), "names": names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state` of the same model, sources and config."""
        super().restore(state)
        self._names = {
            number: EncodedOntology.of(self.sources[number].ontology, *vectors)
            for number, vectors in state["names"].items()
        }


_KINDS = ("alternatives", "nlu", "response", "scores")


def hide(dialogue: Dialogue, rng: random.Random) -> Dialogue:
    """A copy of the dialogue as an assistant would log it that lacks one kind of field."""
    kind = rng.choice(_KINDS)
    hidden = copy.copy(dialogue)
    hidden.turns = []
    for turn in dialogue.turns:
        turn = copy.copy(turn)
        if kind == "alternatives":
            # Without any hypothesis it would be another request: a typed one.
            turn.asr = [msgspec.structs.replace(each, score=None) for each in turn.asr[:1]]
        elif kind == "nlu":
            turn.nlu = []
        elif kind == "response":
            turn.response, turn.barge_in = None, None
        else:
            turn.asr = [msgspec.structs.replace(each, score=None) for each in turn.asr]
            turn.nlu = [msgspec.structs.replace(each, score=None) for each in turn.nlu]
            turn.wake_score = None
            turn.started_at = turn.ended_at = None
        hidden.turns.append(turn)
    return hidden


@torch.inference_mode()
def calibrate(model: Model, sources: Sequence[Source], precision: float) -> dict[Label, dict[str, float]]:
    """Sets every labeler's temperature, decision and threshold from annotated dialogues that it was not trained on.

    Returns, by label: temperature, threshold, decision where there is one, coverage and precision of what is kept,
    number of questions. A label that nothing here annotates is left out: it keeps what it has. Only of failure points
    the sources' noisy targets set temperature and decision then. An annotated answer that cannot be given, such as an
    intent that is out of reach, has no say in the temperature; what is given is wrong.
    """
    report: dict[Label, dict[str, float]] = {}
    # Kept, since that takes less memory than the dialogues that were trained on.
    encoded = list(_encoded(model, sources))
    # Which slots are found depends on which intents are, and how sure these are; a failure point may depend on both.
    last = (Label.SLOTS, Label.FAILURE_POINT)
    for label in (*(each for each in model.labelers if each not in last), *last):
        if label is Label.SLOTS:
            found = _calibrate_slots(model, encoded, precision)
        else:
            labeler = model.labelers[label]
            answered = _answered(labeler, encoded)
            found = _calibrate(labeler, answered, precision) if answered else None
            if found is None and label is Label.FAILURE_POINT:
                found = _calibrate_by_feedback(model.failure_point, sources, encoded)
        if found is not None:
            report[label] = found
    return report


def _encoded(model: Model, sources: Sequence[Source]) -> Iterator[tuple[int, Encoded]]:
    """Number of a source, and some of its dialogues."""
    for number, source in enumerate(sources):
        names = model.encode_ontology(source.ontology)
        for group in groups(source.dialogues, GROUP_TURNS):
            yield number, model.encode(group, names)


class _Answered(NamedTuple):
    """M annotated questions to a labeler."""

    scores: Tensor
    """(M, K) in a group of dialogues of one ontology, so K varies"""
    answers: Tensor
    """(M,)"""


def _answered(labeler: Labeler, encoded: Sequence[tuple[int, Encoded]]) -> list[list[_Answered]]:
    """By source, those left out that annotate nothing of this label."""
    by_source: dict[int, list[_Answered]] = {}
    for number, each in encoded:
        targets = labeler.targets(each)
        known = targets != IGNORE
        if known.any():
            answered = _Answered(labeler.scores(each).float()[known], targets[known])
            by_source.setdefault(number, []).append(answered)
    return list(by_source.values())


def _calibrate(labeler: Labeler, sources: list[list[_Answered]], precision: float) -> dict[str, float]:
    _set_temperature(labeler, sources)
    if labeler.positive is not None:
        _set_decision(labeler, [_positive(labeler, labeler.positive, source) for source in sources])
    confidence, right = [], []
    for scores, answers in itertools.chain(*sources):
        probabilities = labeler.probabilities(scores)
        given = labeler.choose(probabilities)
        confidence.append(probabilities.gather(1, given[:, None])[:, 0])
        right.append(given == answers)
    return _set_threshold(labeler, torch.cat(confidence), torch.cat(right), precision)


def _calibrate_slots(model: Model, encoded: Sequence[tuple[int, Encoded]], precision: float) -> dict[str, float] | None:
    """Of a slot it is not asked which one it is, but whether one that was found is right; None where none was."""
    before = float(model.slots.temperature)
    model.slots.temperature.fill_(1.0)
    found: dict[int, list[tuple[float, bool]]] = {}
    for number, each in encoded:
        slots_of_turns = model.slots.decode(each, model.intent.decode(each))
        found.setdefault(number, []).extend(zip(*model.slots.graded(each, slots_of_turns), strict=True))
    annotated = [torch.tensor(of_source, dtype=torch.float32) for of_source in found.values() if of_source]
    if not annotated:
        model.slots.temperature.fill_(before)
        return None
    asked = [[_Answered(slots.scores(each[:, 0]), each[:, 1].long())] for each in annotated]
    _set_temperature(model.slots, asked)
    sure = torch.cat([model.slots.probabilities(each.scores)[:, 1] for (each,) in asked])
    return _set_threshold(model.slots, sure, torch.cat(annotated)[:, 1] > 0, precision)


def _set_temperature(labeler: Labeler, sources: Sequence[Sequence[_Answered]]) -> None:
    possible = list(filter(None, map(_possible, sources)))
    if not possible:
        return
    losses = torch.zeros(len(_TEMPERATURES))
    for source in possible:
        # The mean of each: the largest log is not more like the user's than the smallest.
        of_source = [
            sum(float(functional.cross_entropy(each.scores / t, each.answers, reduction="sum")) for each in source)
            for t in _TEMPERATURES
        ]
        losses += torch.tensor(of_source) / sum(len(each.answers) for each in source)
    labeler.temperature.fill_(float(_TEMPERATURES[losses.argmin()]))


def _possible(source: Sequence[_Answered]) -> list[_Answered]:
    """The questions of which the right answer can be given: the loss of another is infinite at any temperature."""
    kept = []
    for scores, answers in source:
        possible = scores.gather(1, answers[:, None])[:, 0].isfinite()
        if possible.any():
            kept.append(_Answered(scores[possible], answers[possible]))
    return kept


def _set_threshold(labeler: Labeler, sure: Tensor, right: Tensor, precision: float) -> dict[str, float]:
    """What `calibrate` tells of a labeler; `sure` and `right` (M,) are of the answers that it gives."""
    correct = right.float()
    order = sure.argsort(descending=True)
    running = correct[order].cumsum(0) / torch.arange(1, len(order) + 1)
    # Equal confidences are kept together or not at all.
    ends = torch.cat([sure[order][:-1] > sure[order][1:], torch.tensor([True])])
    # From logs like these all answers may be right often enough; from others they are not. An answer that is more
    # likely wrong than right is never to be trusted.
    kept = ((running >= precision) & ends & (sure[order] >= 0.5)).nonzero()
    count = int(kept[-1]) + 1 if len(kept) else 0
    labeler.threshold.fill_(float(sure[order[count - 1]]) if count else NEVER)
    return {
        "temperature": float(labeler.temperature),
        **({} if labeler.positive is None else {"decision": float(labeler.decision)}),
        "threshold": float(labeler.threshold),
        "coverage": float((sure >= labeler.threshold).float().mean()),
        "precision": float(correct[sure >= labeler.threshold].mean()) if count else 0.0,
        "questions": float(len(order)),
    }


def _positive(labeler: Labeler, positive: slice, source: Sequence[_Answered]) -> tuple[Tensor, Tensor]:
    """(M,) probability that the answer is a positive one, and (M,) 1 where it is, else 0."""
    probability = torch.cat([labeler.probabilities(each.scores)[:, positive].sum(dim=-1) for each in source])
    kinds = positives(positive, source[0].scores.shape[1])
    return probability, torch.cat([kinds[each.answers] for each in source]).float()


def _calibrate_by_feedback(
    labeler: FailurePointLabeler, sources: Sequence[Source], encoded: Sequence[tuple[int, Encoded]]
) -> dict[str, float] | None:
    """Sets temperature and decision; None, and nothing is set, where the sources have too few noisy targets."""
    asked: list[tuple[Tensor, Tensor]] = []
    for number, source in enumerate(sources):
        if not source.targets or not source.dialogues:
            continue
        scores = torch.cat([labeler.scores(each).float() for group, each in encoded if group == number])
        expected = 1 - torch.from_numpy(np.concatenate(source.targets)[:, 0]).float()
        known = ~expected.isnan()
        if known.any():
            asked.append((scores[known], expected[known]))
    if sum(len(expected) for _, expected in asked) < FEWEST_VOTED:
        return None

    def defects() -> list[tuple[Tensor, Tensor]]:
        return [(labeler.probabilities(scores)[:, labeler.positive].sum(dim=-1), each) for scores, each in asked]

    losses = []
    for temperature in _TEMPERATURES:
        labeler.temperature.copy_(temperature)
        # In float32 a sum of probabilities can be more than 1.
        losses.append(sum(float(functional.binary_cross_entropy(p.clamp(0, 1), each)) for p, each in defects()))
    labeler.temperature.copy_(_TEMPERATURES[int(np.argmin(losses))])
    _set_decision(labeler, defects())
    return {"temperature": float(labeler.temperature), "decision": float(labeler.decision)}


def _set_decision(labeler: Labeler, sources: Sequence[tuple[Tensor, Tensor]]) -> None:
    """For each source (M,) the model's probability that the answer is a positive one, and (M,) that in truth."""
    curves = []
    for probability, truth in sources:
        given = probability[:, None] >= _DECISIONS
        if truth.any():
            found = (given * truth[:, None]).sum(dim=0)
            curves.append(2 * found / (given.sum(dim=0) + truth.sum()))
    if curves:
        f1 = torch.stack(curves).mean(dim=0)
        # Where several are as good, such as in a log of few turns, that which is nearest to the middle of them.
        best = _DECISIONS[f1 == f1.max()]
        labeler.decision.fill_(float(best[len(best) // 2]))
