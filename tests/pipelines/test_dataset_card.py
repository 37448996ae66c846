"""The dataset card: true of the whole output, and never written over somebody's own file."""

from __future__ import annotations

import importlib.resources
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from huggingface_hub import DatasetCard

from labelers.model import Model
from pipelines import label
from pipelines.dataset_card import CARD, card, is_free, model_facts
from pipelines.publish import published
from schemas.labels import TABLES


@pytest.fixture(scope="module")
def text(labelled_output: Any) -> str:
    return (labelled_output.labels / CARD).read_text(encoding="utf-8")


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table under a heading: its other cells by its first, less backquotes."""
    lines = text.partition(f"\n## {heading}\n")[2].partition("\n| --- ")[2].split("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {first.strip("`"): rest for first, *rest in cells}


def test_it_is_a_card_as_hugging_face_has_them(text: str) -> None:
    data = DatasetCard(text).data.to_dict()
    assert data["annotations_creators"] == ["machine-generated"]
    assert data["size_categories"] == ["n<1K"]


def test_its_files_hold_as_many_rows_as_it_says(text: str, labelled_output: Any) -> None:
    folder = labelled_output.labels
    patterns = {each["config_name"]: each["data_files"] for each in DatasetCard(text).data.to_dict()["configs"]}
    counted = {name: ds.dataset(list(map(str, folder.glob(patterns[name])))).count_rows() for name in TABLES}
    assert {name: int(cells[1]) for name, cells in rows(text, "Tables").items()} == counted
    assert counted["turns"] == sum(int(turns) for turns, _ in rows(text, "What was found").values())


def test_it_speaks_of_every_input(text: str, labelled_output: Any) -> None:
    assert {Path(name).name: cells[:5] for name, cells in rows(text, "Input").items()} == {
        "calls-*.jsonl": ["jsonl", "5", "2", "3", "3"],
        "turns.jsonl": ["turns", "4", "2", "3", "1"],
    }
    assert rows(text, "Rejected") == {"duplicate_id": ["2"], "invalid_json": ["1"], "duplicate_event": ["1"]}


def test_the_same_runs_give_the_same_card(text: str, labelled_output: Any) -> None:
    manifests = list(published(str(labelled_output.labels)))
    assert card(manifests) == card(reversed(manifests)) == text


def test_what_was_not_measured_is_said_to_be_so(text: str) -> None:
    assert rows(text, "Models")["failure_point"][2:] == ["not measured"] * 3


def test_it_quotes_what_the_model_says_of_itself(labelled_output: Any) -> None:
    folder = Path(str(importlib.resources.files("labelers"))) / "builtin"
    facts = model_facts(Model.load(folder), folder)
    [first, *_] = published(str(labelled_output.labels))
    first.summary.abstained["failure_point"] = first.summary.turns
    text = card([type(first)(**{name: getattr(first, name) for name in first.__struct_fields__} | {"model": facts})])
    threshold, here, coverage, precision, answers = rows(text, "Models")["failure_point"]
    measured = facts.calibration["failure_point"]
    assert here == "0.0%"
    assert threshold == f"{measured['threshold']:.3f}"
    assert (coverage, precision) == (f"{measured['coverage']:.1%}", f"{measured['precision']:.1%}")
    assert answers == f"{measured['questions']:,.0f}"
    assert "> | label | data | measure |" in text
    assert "> - **False wakes" in text


def test_a_readme_of_the_user_is_left_alone(
    labelled_output: Any, tmp_path: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(labelled_output.labels, output)
    assert is_free(str(output))
    (output / CARD).write_text("# Mine\n")
    log = tmp_path / "a.jsonl"
    log.write_text('{"dialogue_id": "a", "turns": [{"text": "stop"}]}')
    label.run(["--input", str(log), "--output", str(output), "--model", str(tiny_model_dir), "--no-progress"])
    assert (output / CARD).read_text() == "# Mine\n"
    assert "was left alone" in capfd.readouterr().err
    assert len(list(published(str(output)))) == 3
