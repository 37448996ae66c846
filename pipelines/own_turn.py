"""A baseline of `faultline evaluate`: a RoBERTa that reads each turn alone.

Network, features and training are those of `faultline train`, but every turn is a dialogue of its own, with its
request, what was understood and the response: nothing that was said before or after. So it tells what knowing the
dialogue is worth. It is trained on the input's own train part, of which a tenth sets its temperatures and its point of
decision.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import msgspec
from rich.console import Console
from rich.progress import Progress

from labelers.learning import Source
from labelers.model import Model
from labelers.training import Trainer, TrainingConfig, calibrate, fit_evidence
from pipelines.errors import UserError
from pipelines.logs import is_annotated
from pipelines.training_run import DEFAULT_LAYERS, DEFAULT_VOCABULARY, DEFAULT_WIDTH, Sizes, is_model, new_model
from schemas.labels import DialogueLabels
from schemas.log import Dialogue, FailurePoint
from schemas.ontology import infer

PASSES = 8
MOST_TURNS = 80_000
"""Turns that are seen in training: of a log with more than an eighth of these, the passes are fewer."""
_CALIBRATES = 10
"""One dialogue in so many calibrates, and does not train."""


def fit(init: str, training: Sequence[Dialogue], console: Console) -> Model:
    """A model of single turns that starts from the words encoder `init`, as `faultline train --init` takes it.

    Raises `UserError` where that cannot be had, or where too little is annotated.
    """
    if is_model(init):
        raise UserError(f"--own-turn {init} is a whole model, which has read dialogues: give it a words encoder.")
    annotated = [each for each in training if is_annotated(each)]
    parts = [annotated[number::_CALIBRATES] for number in range(_CALIBRATES)]
    alone = [turn for part in parts[1:] for turn in _turns_alone(part)]
    if not alone or not parts[0]:
        raise UserError(
            f"--own-turn trains on the annotated dialogues of the train part, which has {len(annotated)}: "
            "give it more logs."
        )
    passes = min(PASSES, MOST_TURNS / len(alone))
    source = Source("own turn", alone, infer(alone, annotations=True), passes)
    config = TrainingConfig()
    model = new_model(Sizes(init, DEFAULT_LAYERS, DEFAULT_VOCABULARY, DEFAULT_WIDTH), [source], config.seed)
    fit_evidence(model, [source], config, anew=True)
    trainer = Trainer(model, [source], config)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Training the baseline of single turns", total=len(trainer.steps))
        for _ in trainer.run():
            bar.update(task, completed=trainer.step)
    trainer.finish()
    calibrate(model, [source._replace(dialogues=list(_turns_alone(parts[0])))], config.precision)
    model.prepare()
    return model


def label(model: Model, dialogues: Sequence[Dialogue]) -> list[DialogueLabels]:
    """For each dialogue the labels of its turns, each read alone; of goals and success they say nothing."""
    labelled = iter(model.label(list(_turns_alone(dialogues))))
    found = []
    for dialogue in dialogues:
        turns = [turn for _ in dialogue.turns for turn in next(labelled).turns]
        defects = sum(turn.failure_point != FailurePoint.CORRECT for turn in turns)
        found.append(DialogueLabels(dialogue.dialogue_id, len(turns), 0, defects, False, 0.0, turns, []))
    return found


def _turns_alone(dialogues: Sequence[Dialogue]) -> Iterator[Dialogue]:
    """Every turn as a dialogue of its own; what its annotation says of other turns is left out."""
    for dialogue in dialogues:
        for index, turn in enumerate(dialogue.turns):
            turn = copy.copy(turn)
            if turn.annotation is not None:
                turn.annotation = msgspec.structs.replace(turn.annotation, goal_id=None, rephrase_of=None)
            alone = copy.copy(dialogue)
            alone.dialogue_id, alone.turns, alone.annotation = f"{dialogue.dialogue_id}#{index}", [turn], None
            yield alone
