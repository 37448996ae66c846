"""`faultline pretrain`, and `faultline train` from what it made."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from labelers.model import Model
from pipelines.cli import main
from pipelines.simulation.garble import Garbler

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"


@pytest.fixture(scope="module")
def garbler() -> Garbler:
    return Garbler()


def test_garbled_words_sound_like_what_was_said(garbler: Garbler) -> None:
    heard = [garbler("Play some jazz in the kitchen, please!", random.Random(seed)) for seed in range(40)]
    assert all(each != "Play some jazz in the kitchen, please!" for each in heard)
    assert all(each.endswith("!") for each in heard)
    assert len(set(heard)) > 20


def test_what_nobody_can_pronounce_is_left_as_it_is(garbler: Garbler) -> None:
    assert garbler("42 xqzzt?", random.Random(0)) == "42 xqzzt?"


@pytest.fixture(scope="module")
def pretrained(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    output = tmp_path_factory.mktemp("pretrained")
    small = ["--init", str(checkpoint), "--width", "16", "--threads", "1"]
    assert main(["pretrain", "--input", str(LOGS), "--output", str(output), *small]) == 0
    return output / "model"


def test_a_pretrained_model_knows_no_label(pretrained: Path) -> None:
    assert not Model.load(pretrained).ontology.services


def test_the_record_beside_it_has_the_recipe_and_no_paths(pretrained: Path) -> None:
    text = (pretrained / "pretraining.json").read_text()
    record = json.loads(text)
    assert record["losses"].keys() == {"masked", "swapped", "garbled"}
    assert str(LOGS.parent) not in text


@pytest.mark.slow
def test_training_starts_from_it(pretrained: Path, tmp_path: Path) -> None:
    options = ["--init", str(pretrained), "--passes", "2", "--threads", "1", "--output", str(tmp_path)]
    assert main(["train", "--input", str(LOGS), *options]) == 0
    model = Model.load(tmp_path / "model")
    assert model.ontology.intents
    # The logs' scores are not those that it was pretrained on, which had none.
    assert model.turn_encoder.features.numbers.edges.std() > 0
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["init"] == {"model_version": Model.load(pretrained).version, "share": 0.0}


def test_logs_without_dialogues_are_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert main(["pretrain", "--input", str(tmp_path / "log.jsonl"), "--output", str(tmp_path / "out")]) == 2
    assert "no dialogue to learn from (1 rejected)" in capsys.readouterr().err


def test_a_name_that_the_registry_would_not_take_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--input", str(LOGS), "--output", str(tmp_path / "out"), "--name", "a:b"]) == 2
    assert "--name: 'a:b' is no name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_whole_model_is_no_words_encoder_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--input", str(LOGS), "--output", str(tmp_path), "--init", "builtin"]) == 2
    assert "--init builtin is a whole model" in capsys.readouterr().err
