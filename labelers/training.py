"""How a model is trained and calibrated; knows nothing of files, logs or options.

- Multi-task: the weighted sum of every labeler's loss; a labeler without annotated questions in a batch adds 0.
- Turns without an annotated failure point can have a noisy target, learned from feedback (`labelers.label_model`):
  they add a further term to the loss of the failure point, with a weight of their own.
- A batch has dialogues of one source only, since an ontology belongs to a source.
- AdamW (Loshchilov and Hutter 2019), linear warm-up, cosine decay; the words encoder learns slower than what is
  new; the weights that are kept are an exponential moving average of the last steps' (Polyak averaging).
- bf16 autocast; master weights in float32.
- The whole schedule follows from the seed, so a run resumes at any step and goes on as it would have.
- Calibration: one temperature a labeler (Guo et al. 2017, arXiv:1706.04599), and the threshold below which a
  labeler abstains: the lowest confidence at which what is kept has the asked-for precision.
"""

from __future__ import annotations

import copy
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

from labelers.base import IGNORE, EncodedOntology, Labeler
from labelers.evidence import Lesson
from labelers.failure_point import POINTS
from labelers.model import Model, groups
from schemas.labels import Label
from schemas.log import Dialogue
from schemas.ontology import Ontology

NAMES_EVERY = 20
"""Steps after which the vectors of an ontology's names are computed again."""

NEVER = 2.0
"""Threshold of a labeler that is not to be trusted at any confidence."""

FEEDBACK = "feedback"
"""The loss of the noisy targets."""

LOSS_WEIGHTS: dict[str, float] = {
    Label.FAILURE_POINT: 1.0,
    Label.INTENT: 0.4,
    Label.SLOTS: 0.4,
    Label.GOAL: 0.4,
    Label.SUCCESS: 0.4,
    Label.REPHRASE: 0.3,
}


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to learn."""

    turns_per_step: int = 192
    words_learning_rate: float = 1e-4
    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup: float = 0.06
    """share of the steps"""
    average_decay: float = 0.995
    """of the moving average of the weights, per step"""
    missing: float = 0.15
    """share of the dialogues of which a kind of field is hidden, so that the model copes without it"""
    precision: float = 0.9
    """of what a labeler does not abstain from, on the validation part"""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.turns_per_step < 1:
            raise ValueError("turns_per_step must be at least 1")
        if not 0 <= self.missing < 1 or not 0 <= self.warmup < 1 or not 0 < self.precision < 1:
            raise ValueError("missing and warmup must be in [0, 1), precision in (0, 1)")


class Source(NamedTuple):
    """Logs of one assistant, annotated or with feedback."""

    name: str
    dialogues: Sequence[Dialogue]
    ontology: Ontology
    passes: float
    """how often each dialogue is seen; 1.5 shows half of them twice"""
    targets: Sequence[npt.NDArray[np.float64]] = ()
    """for each dialogue (turns, 6): noisy targets of `noisy_targets`; empty: there is none at all"""
    feedback_weight: float = 0.0
    """of the noisy targets' term of the loss; that of the annotated failure points has 1"""


class Step(NamedTuple):
    """What one step trains on."""

    source: int
    dialogues: list[int]


def schedule(sources: Sequence[Source], config: TrainingConfig) -> list[Step]:
    """All steps of a run, in order. The same sources and seed give the same schedule."""
    rng = random.Random(config.seed)
    steps: list[Step] = []
    for number, source in enumerate(sources):
        left = round(source.passes * len(source.dialogues))
        while left > 0:
            order = list(range(len(source.dialogues)))
            rng.shuffle(order)
            order = order[:left]
            left -= len(order)
            position = {id(source.dialogues[index]): index for index in order}
            for group in groups([source.dialogues[index] for index in order], config.turns_per_step):
                steps.append(Step(number, [position[id(dialogue)] for dialogue in group]))
    rng.shuffle(steps)
    return steps


def noisy_targets(
    model: Model, dialogues: Sequence[Dialogue], defects: Sequence[npt.NDArray[np.float64]]
) -> list[npt.NDArray[np.float64]]:
    """For each dialogue (turns, 6), in the order of `POINTS`: P(correct) and the share of each component in P(defect).

    `defects` is for each dialogue (turns,) P(defect), NaN where there is none: so is then the row. Feedback tells that
    something failed, and never what: the components share P(defect) as the model, before it is trained on, has it, or
    training would give all of it to one of them. A model that was never trained leaves it open, by shares of 0.
    """
    targets = [np.column_stack([1 - each, *[each * 0.0] * (len(POINTS) - 1)]) for each in defects]
    # A model that was never saved has no version.
    if model.version:
        known = [number for number, each in enumerate(defects) if np.isfinite(each).any()]
        for number, labels in zip(known, model.label([dialogues[number] for number in known]), strict=True):
            found = [[turn.failure_point_probabilities[point] for point in POINTS[1:]] for turn in labels.turns]
            # One can have underflowed.
            components = np.maximum(np.array(found), np.finfo(np.float32).tiny)
            shares = components / components.sum(axis=1, keepdims=True)
            targets[number][:, 1:] = defects[number][:, None] * shares
    return targets


def fit_evidence(model: Model, sources: Sequence[Source], config: TrainingConfig) -> None:
    """Trains what is trained by itself, before the rest (`labelers.evidence`); from logs of which fields are hidden,
    too."""
    rng = random.Random(config.seed)
    lessons = []
    for source in sources:
        none = (np.full((len(dialogue.turns), len(POINTS)), np.nan) for dialogue in source.dialogues)
        for dialogue, targets in zip(source.dialogues, source.targets or none, strict=True):
            # As it is, and with a kind of field hidden, in the shares in which the rest of the training sees them.
            for shown, share in ((dialogue, 1 - config.missing), (hide(dialogue, rng), config.missing)):
                lessons.append(Lesson(shown, source.passes * share, targets, source.feedback_weight))
    model.failure_point.fit_evidence(lessons, config.seed, anew=not model.version)


class Trainer:
    """Trains a model step by step; `state` and `restore` make a run restartable."""

    def __init__(self, model: Model, sources: Sequence[Source], config: TrainingConfig) -> None:
        self.model = model
        self.sources = sources
        self.config = config
        self.steps = schedule(sources, config)
        self.step = 0
        self.skipped = 0
        """steps whose gradient was not finite: they change nothing, and are told"""
        words = list(model.turn_encoder.words.parameters())
        new = [
            each
            for name, each in model.named_parameters()
            if each.requires_grad and not name.startswith("turn_encoder.words.")
        ]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": words, "lr": config.words_learning_rate},
                {"params": new, "lr": config.learning_rate},
            ],
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        self._average = {name: each.detach().clone() for name, each in model.named_parameters()}
        self._names: dict[int, EncodedOntology] = {}

    def _rate(self, step: int) -> float:
        total = max(len(self.steps), 1)
        warm = max(round(self.config.warmup * total), 1)
        if step < warm:
            return (step + 1) / warm
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(total - warm, 1), 1.0)))

    def run(self) -> Iterator[dict[str, float]]:
        """Trains to the end; yields the losses of each step, by label and, where it has noisy targets, `FEEDBACK`."""
        while self.step < len(self.steps):
            yield self._one()

    def _one(self) -> dict[str, float]:
        # Every step draws from its own seed: a resumed run repeats what an undisturbed one would have drawn.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        rng = random.Random(self.config.seed * 1_000_003 + self.step)
        step = self.steps[self.step]
        source = self.sources[step.source]
        dialogues = [
            hide(source.dialogues[index], rng) if rng.random() < self.config.missing else source.dialogues[index]
            for index in step.dialogues
        ]
        self.model.train()
        if self.step % NAMES_EVERY == 0:
            self._names.clear()
        if step.source not in self._names:
            with torch.no_grad(), self._autocast():
                self._names[step.source] = self.model.encode_ontology(source.ontology)
        with self._autocast():
            encoded = self.model.encode(dialogues, self._names[step.source])
            losses: dict[str, Tensor] = {label: labeler.loss(encoded) for label, labeler in self.model.labelers.items()}
            if source.targets:
                targets = torch.from_numpy(np.concatenate([source.targets[index] for index in step.dialogues])).float()
                losses[FEEDBACK] = self.model.failure_point.feedback_loss(encoded, targets.to(self.model.device))
        weights = LOSS_WEIGHTS | {FEEDBACK: LOSS_WEIGHTS[Label.FAILURE_POINT] * source.feedback_weight}
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            self._optimizer.step()
        else:
            self.skipped += 1
        self._scheduler.step()
        self.step += 1
        decay = min(self.config.average_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self._average[name].lerp_(parameter, 1 - decay)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16)

    def finish(self) -> None:
        """Puts the averaged weights into the model, rounded to what is stored."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self._average[name])
        self.model.round()
        self.model.eval()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: tensors and plain values only."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "names": {number: (each.intent_vectors, each.slot_vectors) for number, each in self._names.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state` of the same model, sources and config."""
        self.step, self.skipped = state["step"], state["skipped"]
        self.model.load_state_dict(state["model"])
        self._average = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
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


def calibrate(model: Model, sources: Sequence[Source], precision: float) -> dict[Label, dict[str, float]]:
    """Sets every labeler's temperature and threshold from annotated dialogues that it was not trained on.

    Returns, by label: temperature, threshold, coverage and precision of what is kept, number of questions. A
    label that nothing here annotates is left out: it keeps the temperature and the threshold that it has.
    """
    collected: dict[Label, tuple[list[Tensor], list[Tensor]]] = {label: ([], []) for label in model.labelers}
    with torch.inference_mode():
        for source in sources:
            names = model.encode_ontology(source.ontology)
            for group in groups(source.dialogues, 1024):
                encoded = model.encode(group, names)
                for label, labeler in model.labelers.items():
                    targets = labeler.targets(encoded)
                    known = targets != IGNORE
                    if known.any():
                        collected[label][0].append(labeler.logits(encoded).float()[known])
                        collected[label][1].append(targets[known])
    report = {}
    for label, (logits, answers) in collected.items():
        if logits:
            report[label] = _calibrate(model.labelers[label], logits, answers, precision)
    return report


def _calibrate(labeler: Labeler, logits: list[Tensor], answers: list[Tensor], precision: float) -> dict[str, float]:
    candidates = torch.logspace(math.log10(0.3), math.log10(4), 60)
    losses = [
        sum(
            float(functional.cross_entropy(each / temperature, answer, reduction="sum"))
            for each, answer in zip(logits, answers, strict=True)
        )
        for temperature in candidates
    ]
    labeler.temperature.fill_(float(candidates[int(np.argmin(losses))]))
    confidence, right = [], []
    for each, answer in zip(logits, answers, strict=True):
        best = labeler.probabilities(each).max(dim=-1)
        confidence.append(best.values)
        right.append(best.indices == answer)
    sure, correct = torch.cat(confidence), torch.cat(right).float()
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
        "threshold": float(labeler.threshold),
        "coverage": float((sure >= labeler.threshold).float().mean()),
        "precision": float(correct[sure >= labeler.threshold].mean()) if count else 0.0,
        "questions": float(len(order)),
    }
