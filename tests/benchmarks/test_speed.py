"""The benchmark compares like with like: all ways give the same vectors and labels, and what differs is found."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import RobertaConfig

from benchmarks import speed_encoders
from benchmarks.plain_model import PlainModel
from benchmarks.speed import Criterion, Kind, Results, Size, sections
from benchmarks.speed_jobs import NEAR, differences, read_labels, run_compare, run_straightforward
from labelers.model import TOKENIZER, Model
from schemas.labels import TABLES, DialogueLabels, Label
from schemas.log import AsrHypothesis, Dialogue, NluHypothesis, Response, Slot, Turn, validate
from schemas.ontology import Intent, Ontology, Service, SlotType

TEXTS = ["play some jazz", "", "ok", "play some jazz", "what is the weather in a town with a long name"]


def _dialogue(number: int) -> Dialogue:
    turns = [
        Turn(
            asr=[AsrHypothesis(text=f"play song {number} {'la ' * index}", score=0.6), AsrHypothesis(text="play it")],
            nlu=[NluHypothesis(intent="play_music", slots=[Slot(name="artist", value=f"song {number}")], score=0.5)],
            response=Response(text="ok" * index),
        )
        for index in range(1 + number % 4)
    ]
    return validate(Dialogue(dialogue_id=str(number), turns=turns))


ONTOLOGY = Ontology((Service("music", intents=(Intent("play_music"), Intent("stop")), slots=(SlotType("artist"),)),))
DIALOGUES = [_dialogue(number) for number in range(6)]
TURNS = sum(len(dialogue.turns) for dialogue in DIALOGUES)


def _vectors(name: str, folder: Path) -> np.ndarray[Any, Any]:
    answers = io.StringIO()
    speed_encoders.main([name, str(folder)], io.StringIO("said\n"), answers)
    ready, answer = map(json.loads, answers.getvalue().splitlines())
    assert ready == {}
    assert answer["seconds"] > 0
    return np.load(folder / f"{name}.said.npy")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    speed_encoders.write(folder, RobertaConfig(vocab_size=200, **sizes), tiny_model_dir / TOKENIZER)
    (folder / speed_encoders.TEXTS).write_text(json.dumps({"said": TEXTS}))
    return folder


@pytest.mark.parametrize("name", ["beam", "faultline", "sentence-transformers"])
def test_every_way_gives_the_vectors_of_transformers(name: str, checkpoint: Path) -> None:
    if name == "sentence-transformers":
        pytest.importorskip("sentence_transformers", reason="the extra bench is not installed")
    ours, theirs = _vectors(name, checkpoint), _vectors("transformers", checkpoint)
    assert ours.shape == (len(TEXTS), 32)
    # bf16 keeps eight bits.
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_the_matrix_product_counts_what_it_multiplies(checkpoint: Path) -> None:
    product = speed_encoders.MatrixProduct(checkpoint)
    # A pack of 2,048 tokens by two layers of four 32 x 32 and two 32 x 64 weights.
    assert product.operations(TEXTS) == 2 * 2_048 * 2 * (4 * 32 * 32 + 2 * 32 * 64)


def test_the_plain_model_gives_the_labels_of_the_packed_one(tiny_model_dir: Path) -> None:
    packed = [turn for each in Model.load(tiny_model_dir).label(DIALOGUES) for turn in each.turns]
    plain = [turn for each in PlainModel.load(tiny_model_dir).label(DIALOGUES) for turn in each.turns]
    assert len(plain) == TURNS
    for one, other in zip(packed, plain, strict=True):
        assert one.failure_point_probabilities == pytest.approx(other.failure_point_probabilities, abs=0.01)
        assert one.intent_confidence == pytest.approx(other.intent_confidence, abs=0.05)


@pytest.fixture(scope="module")
def sure_model_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A model that is sure that recognition failed."""
    model = Model.load(tiny_model_dir)
    model.failure_point.hazards[-1].bias.data.copy_(torch.tensor([-9.0, 9.0, -9.0, -9.0, -9.0]))
    folder = tmp_path_factory.mktemp("sure-model")
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def straightforward(tmp_path_factory: pytest.TempPathFactory, sure_model_dir: Path) -> Path:
    """What the straightforward Beam job leaves of the dialogues."""
    folder = tmp_path_factory.mktemp("straightforward")
    logs = folder / "logs.jsonl"
    logs.write_bytes(b"".join(msgspec.json.encode(dialogue) + b"\n" for dialogue in DIALOGUES))
    found = run_straightforward(logs, "jsonl", sure_model_dir, ONTOLOGY, folder / "output")
    assert found["turns"] == TURNS
    return folder / "output"


def test_the_straightforward_job_gives_the_labels_of_its_model(straightforward: Path, sure_model_dir: Path) -> None:
    written = read_labels([straightforward])
    assert len(written) == len(DIALOGUES)
    for labels in PlainModel.load(sure_model_dir).label(DIALOGUES, ONTOLOGY):
        assert not list(differences(labels, written[labels.dialogue_id]))


def test_a_label_that_differs_where_the_model_is_sure_is_far_from_a_threshold(
    straightforward: Path, sure_model_dir: Path, tmp_path: Path
) -> None:
    model = PlainModel.load(sure_model_dir)
    same = run_compare(DIALOGUES, straightforward, [straightforward], model, ONTOLOGY)
    assert (same["turns"], same["different_turns"], same["far_differences"]) == (TURNS, 0, 0)
    shutil.copytree(straightforward, tmp_path / "changed")
    [part] = (tmp_path / "changed" / "turns").iterdir()
    rows = pq.read_table(part).to_pylist()
    rows[2]["failure_point"] = "wake"
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["turns"]), part)
    changed = run_compare(DIALOGUES, tmp_path / "changed", [straightforward], model, ONTOLOGY)
    assert (changed["differently_decided_turns"], changed["differences"]) == (1, {"failure_point": 1})
    assert changed["far_differences"] == 1
    assert changed["farthest"] > NEAR


def _split(labels: DialogueLabels, after: int) -> DialogueLabels:
    """The labels as if the turns from `after` on were another goal."""
    copy = msgspec.convert(msgspec.to_builtins(labels), DialogueLabels)
    indexes = list(range(len(copy.turns)))
    copy.goals = [
        msgspec.structs.replace(copy.goals[0], goal_id=name, turn_indexes=turns)
        for name, turns in (("a", indexes[:after]), ("b", indexes[after:]))
        if turns
    ]
    for turn in copy.turns:
        turn.goal_id = "a" if turn.turn_index < after else "b"
    return copy


def test_goals_that_are_numbered_otherwise_follow_from_the_turn_where_they_part(tiny_model_dir: Path) -> None:
    [labels] = Model.load(tiny_model_dir).label([DIALOGUES[3]])
    found = list(differences(_split(labels, 4), _split(labels, 2)))
    assert [(each.turn, each.label, each.follows) for each in found] == [(2, Label.GOAL, False), (3, Label.GOAL, True)]


def test_a_criterion_is_judged_by_the_median_of_its_rounds() -> None:
    assert Criterion("faster", 3.0, [1.0, 3.5, 9.0]).met
    assert not Criterion("faster", 3.0, [9.0, 2.5, 1.0]).met
    assert not Criterion("growth", 0.1, [0.2], Kind.SHARE, at_most=True).met


def test_the_report_has_a_section_of_what_was_measured_alone() -> None:
    small, large = (Size(turns, turns / 400, 0.002, 900 << 20, 1, 2) for turns in (10_000, 1_000_000))
    report = list(sections(Results({}, sizes=[small, large, small])))
    assert [section.title for section in report] == ["Criteria", "Size of the log, and processes"]
    assert [row[0] for row in report[1].rows] == ["10,000", "1,000,000", "10,000"]
    assert report[1].rows[1][6:] == ("900 MiB", "1.389")
