"""How weights are learned, whatever the objective; knows nothing of files, logs or options.

- AdamW (Loshchilov and Hutter 2019), linear warm-up, cosine decay; the words encoder learns slower than what is
  new; the weights that are kept are an exponential moving average of the last steps' (Polyak averaging).
- bf16 autocast; master weights in float32.
- The whole schedule follows from the seed, so a run resumes at any step and goes on as it would have.
- A batch has dialogues of one source only, since an ontology belongs to a source.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelers.model import Model, groups
from schemas.log import Dialogue
from schemas.ontology import Ontology


@dataclass(frozen=True)
class LearningConfig:
    """How fast to learn."""

    turns_per_step: int = 192
    words_learning_rate: float = 1e-4
    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup: float = 0.06
    """share of the steps"""
    average_decay: float = 0.995
    """of the moving average of the weights, per step"""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.turns_per_step < 1:
            raise ValueError("turns_per_step must be at least 1")
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup must be in [0, 1)")


class Source(NamedTuple):
    """Logs of one assistant, annotated, with feedback, or neither."""

    name: str
    dialogues: Sequence[Dialogue]
    ontology: Ontology
    passes: float
    """how often each dialogue is seen; 1.5 shows half of them twice"""
    targets: Sequence[npt.NDArray[np.float64]] = ()
    """for each dialogue (turns, 6): noisy targets of `labelers.training.noisy_targets`; empty: there is none at all"""
    feedback_weight: float = 0.0
    """of the noisy targets' term of the loss; that of the annotated failure points has 1"""


class Step(NamedTuple):
    """What one step learns from."""

    source: int
    dialogues: list[int]


def schedule(sources: Sequence[Source], config: LearningConfig) -> list[Step]:
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


class Learner(ABC):
    """Learns step by step; `state` and `restore` make a run restartable."""

    def __init__(self, model: Model, sources: Sequence[Source], config: LearningConfig) -> None:
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

    def _rate(self, step: int) -> float:
        total = max(len(self.steps), 1)
        warm = max(round(self.config.warmup * total), 1)
        if step < warm:
            return (step + 1) / warm
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(total - warm, 1), 1.0)))

    @abstractmethod
    def losses(self, step: Step, rng: random.Random) -> dict[str, tuple[float, Tensor]]:
        """Every loss of a step by name, with its weight. Whatever is drawn is drawn from `rng`, or by torch."""

    def run(self) -> Iterator[dict[str, float]]:
        """Learns to the end; yields the losses of each step."""
        while self.step < len(self.steps):
            yield self._one()

    def _one(self) -> dict[str, float]:
        # Every step draws from its own seed: a resumed run repeats what an undisturbed one would have drawn.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        rng = random.Random(self.config.seed * 1_000_003 + self.step)
        self.model.train()
        losses = self.losses(self.steps[self.step], rng)
        total = sum((weight * loss for weight, loss in losses.values()), torch.zeros(()))
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.step += 1
        if bool(torch.isfinite(norm)):
            self._optimizer.step()
            self._move_average()
        else:
            self.skipped += 1
        self._scheduler.step()
        return {name: float(loss.detach()) for name, (_, loss) in losses.items()}

    @torch.no_grad()
    def _move_average(self) -> None:
        decay = min(self.config.average_decay, self.step / (self.step + 10))
        for name, parameter in self.model.named_parameters():
            self._average[name].lerp_(parameter, 1 - decay)

    def autocast(self) -> torch.autocast:
        """The arithmetic of the networks in a step."""
        return torch.autocast(self.model.device.type, torch.bfloat16)

    def keep(self, start: Mapping[str, Tensor], share: float) -> None:
        """Moves the averaged weights that way towards `start`, parameters by name: the share 1 would be all of it.

        Once all is learned, it keeps more of what a model could do that the logs do not ask for (Wortsman et al. 2022,
        *Robust fine-tuning of zero-shot models*).
        """
        with torch.no_grad():
            for name, average in self._average.items():
                average.lerp_(start[name], share)

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
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state` of the same model, sources and config."""
        self.step, self.skipped = state["step"], state["skipped"]
        self.model.load_state_dict(state["model"])
        self._average = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
