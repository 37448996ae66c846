"""Pretraining: what is hidden, swapped and garbled, and that the encoders learn to tell."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from labelers.base import IGNORE
from labelers.learning import Source
from labelers.model import Model
from labelers.pretraining import Disturbed, Pretrainer, PretrainingConfig, disturb
from schemas.log import AsrHypothesis, Dialogue, NluHypothesis, Response, Turn, validate
from schemas.ontology import Ontology

FAST = PretrainingConfig(turns_per_step=32, learning_rate=5e-3, words_learning_rate=5e-3, average_decay=0.9)
TOPICS = {"jazz": "playing jazz", "rain": "it rains", "lamp": "the lamp is on", "bus": "it leaves at six"}


def shout(text: str, rng: random.Random) -> str:
    return f"{text} zzz"


def dialogues(count: int) -> list[Dialogue]:
    """Each answer fits its request."""
    chance = random.Random(0)
    made = []
    for index in range(count):
        turns = [Turn(text=topic, response=Response(text=TOPICS[topic])) for topic in chance.choices(list(TOPICS), k=4)]
        made.append(validate(Dialogue(dialogue_id=str(index), turns=turns)))
    return made


def pretrainer(folder: Path, passes: float = 1.0) -> Pretrainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pretrainer(Model.load(folder).float(), [Source("a", dialogues(40), Ontology(), passes)], FAST, shout)


def disturbed(dialogue: Dialogue, responses: list[str | None], **shares: float) -> Disturbed:
    config = PretrainingConfig(**{"swapped": 1e-9, "garbled": 1e-9, **shares})
    return disturb(dialogue, responses, config, shout, random.Random(0))


def test_a_swapped_response_is_another_one_and_is_said_to_be() -> None:
    before = dialogues(1)[0]
    after = disturbed(before, ["elsewhere"], swapped=1 - 1e-9)
    for old, new, swapped in zip(before.turns, after.dialogue.turns, after.swapped, strict=True):
        assert old.response is not None
        assert new.response is not None
        assert swapped == (old.response.text != new.response.text)
    assert sum(after.swapped) > 0
    assert after.garbled == [0] * 4


def test_a_garbled_request_is_said_to_be() -> None:
    before = dialogues(1)[0]
    after = disturbed(before, [], garbled=1 - 1e-9)
    assert [turn.text for turn in after.dialogue.turns] == [f"{turn.text} zzz" for turn in before.turns]
    assert (after.garbled, after.swapped) == ([1] * 4, [0] * 4)


def test_nobody_is_asked_about_what_is_not_there() -> None:
    silent = validate(Dialogue(dialogue_id="a", turns=[Turn(text="jazz"), Turn(asr=[AsrHypothesis(text="")])]))
    after = disturbed(silent, [None], swapped=1 - 1e-9, garbled=1 - 1e-9)
    assert (after.swapped, after.garbled) == ([IGNORE, IGNORE], [1, IGNORE])


def test_nothing_but_words_is_read() -> None:
    heard = [AsrHypothesis(text="jazz"), AsrHypothesis(text="chess")]
    turn = Turn(asr=heard, nlu=[NluHypothesis(intent="play")], response=Response(text="chess it is", action="chess"))
    after = disturbed(validate(Dialogue(dialogue_id="a", turns=[turn])), [None])
    assert after.dialogue.turns == [Turn(text="jazz", response=Response(text="chess it is"))]


def test_of_a_turn_some_pieces_are_hidden_and_never_the_special_ones(tiny_model_dir: Path) -> None:
    learner = pretrainer(tiny_model_dir)
    [[turn]] = learner.model.tokenizer.dialogues([Dialogue(dialogue_id="a", turns=[Turn(text="jazz " * 12)])])
    masked, wanted = learner.mask(turn, np.random.default_rng(0))
    asked = wanted != IGNORE
    assert 0 < asked.sum() < len(turn.ids) / 2
    assert not asked[[0, -1]].any()
    assert (wanted[asked] == turn.ids[asked]).all()
    assert (masked.ids[~asked] == turn.ids[~asked]).all()
    assert (masked.ids[asked] != turn.ids[asked]).any()


@pytest.mark.slow
def test_the_encoders_learn_what_belongs_together_and_what_was_said(tiny_model_dir: Path) -> None:
    learner = pretrainer(tiny_model_dir, passes=60)
    history = list(learner.run())
    first, last = (
        {name: np.mean([each[name] for each in part]) for name in history[0]} for part in (history[:10], history[-10:])
    )
    assert last["garbled"] < 0.5 * first["garbled"]
    assert last["swapped"] < 0.9 * first["swapped"]
    assert last["masked"] < 0.7 * first["masked"]


def test_what_is_left_is_a_model_without_heads_of_its_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    learner = pretrainer(tiny_model_dir)
    next(learner.run())
    learner.finish()
    learner.model.save(tmp_path / "model")
    assert set(Model.load(tmp_path / "model").state_dict()) == set(Model.load(tiny_model_dir).state_dict())


def test_a_run_goes_on_as_it_would_have(tiny_model_dir: Path) -> None:
    whole, begun, resumed = (pretrainer(tiny_model_dir) for _ in range(3))
    losses = list(whole.run())
    next(begun.run())
    resumed.restore(begun.state())
    assert list(resumed.run()) == losses[1:]
