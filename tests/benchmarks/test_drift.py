"""What the benchmark of drift draws, and what it counts as an alarm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import drift
from pipelines import label
from pipelines.cli import guarded
from pipelines.labelled import Labelled


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """An output of forty calls, of which each fourth comes from a phone."""
    folder = tmp_path_factory.mktemp("phones")
    (folder / "log.jsonl").write_text(
        "\n".join(
            json.dumps(
                {
                    "dialogue_id": f"{number}",
                    "device": "phone" if number % 4 == 0 else "speaker",
                    "turns": [{"text": "stop"}] * (1 + number % 3),
                }
            )
            for number in range(40)
        )
    )
    arguments = ["--input", str(folder / "log.jsonl"), "--output", str(folder / "out"), "--model", str(tiny_model_dir)]
    label.run([*arguments, "--no-progress"])
    return folder / "out"


def _ids(labelled: Labelled, table: str) -> set[str]:
    return {name for (name,) in labelled.connection.execute(f"SELECT dialogue_id FROM {table}").fetchall()}


def test_the_samples_of_a_pair_have_no_dialogue_in_common(phones: Path) -> None:
    with Labelled.open(str(phones)) as labelled:
        drawn = []
        for ours, theirs in drift.pairs(labelled, 12, 3, 0):
            assert len(_ids(ours, "dialogues")) == len(_ids(theirs, "dialogues")) == 12
            assert not _ids(ours, "dialogues") & _ids(theirs, "dialogues")
            for sample in (ours, theirs):
                assert _ids(sample, "turns") == _ids(sample, "goals") == _ids(sample, "dialogues")
            drawn.append(frozenset(_ids(ours, "dialogues")))
        assert len(set(drawn)) == 3
        assert len(_ids(labelled, "dialogues")) == 40


def run(monkeypatch: pytest.MonkeyPatch, phones: Path, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["drift.py", "--labels", str(phones), *options])
    return guarded(drift.main)


def test_small_samples_differ_by_chance_and_raise_no_alarm(
    phones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, phones, "--dialogues", "5", "--pairs", "4") == 0
    row = capsys.readouterr().out.splitlines()[3]
    dialogues, pairs, alarms, by_psi, largest = (cell.strip() for cell in row.strip("│").split("│"))
    assert (dialogues, pairs, alarms, by_psi) == ("5", "4", "0", "4")
    assert float(largest.split(", ")[1]) > 0.1


def test_more_dialogues_than_there_are_is_a_mistake(
    phones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, phones, "--dialogues", "21") == 2
    assert "has 40 dialogues: give a --dialogues of 1 to 20." in capsys.readouterr().err
