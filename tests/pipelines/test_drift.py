"""faultline drift: what has drifted is named and ends with 3; chance, and what was not logged, does not."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipelines import label
from pipelines.cli import main
from pipelines.distributions import LARGE, MODERATE, QUANTITIES, Drift, Drifts, drifts, psi
from pipelines.labelled import VIEWS, Labelled


def opened(
    dialogues: int,
    *,
    seed: int,
    asr: float = 0.1,
    turns: int = 4,
    repeated: int = 1,
    score: float = 0.0,
    **fields: Any,
) -> Labelled:
    """An output with that share of ASR failures; every turn stands in it `repeated` times."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, Any]]] = {"turns": [], "goals": [], "dialogues": []}
    for number in range(dialogues):
        ids = {"dataset": "d", "dialogue_id": f"{number}"}
        for _ in range(turns):
            sure, failed = rng.random(2)
            turn = {
                "failure_point": "asr" if failed < asr else "correct",
                "failure_point_confidence": sure,
                "is_goal_start": True,
                "slots": [],
                "feedback_signals": [],
                "abstained": ["intent"] if sure < 0.3 else [],
                "asr": [{"text": "hello", "score": score + rng.normal()}],
                "nlu": [],
                "entities": [],
                **fields,
            }
            rows["turns"] += [{**ids, **turn}] * repeated
        rows["goals"].append({**ids, "success": True})
        rows["dialogues"].append({**ids, "success": True, "turn_count": turns})
    connection = duckdb.connect()
    for table, of in rows.items():
        connection.register("rows", pa.Table.from_pylist(of, schema=VIEWS[table]))
        connection.execute(f"CREATE TABLE {table} AS FROM rows")
    return Labelled("", (), connection, (), ExitStack())


def drifted(found: Drifts, threshold: float = LARGE) -> list[str]:
    return [each.quantity for each in found.drifts if each.exceeds(threshold)]


def named(found: Drifts, quantity: str) -> Drift:
    return next(each for each in found.drifts if each.quantity == quantity)


def test_the_index_is_that_of_its_definition() -> None:
    assert psi([50_000, 50_000], [25_000, 75_000]) == pytest.approx(
        0.25 * math.log(2) - 0.25 * math.log(2 / 3), rel=1e-3
    )
    assert psi([10, 20, 30], [100, 200, 300]) < 0.01


def test_two_samples_of_the_same_have_not_drifted() -> None:
    found = drifts(opened(300, seed=0), opened(300, seed=1))
    assert not drifted(found, threshold=0.05)
    assert {each.quantity for each in found.drifts} | set(found.not_compared) == {each.name for each in QUANTITIES}


@pytest.mark.parametrize(
    ("change", "quantity", "test"),
    [
        ({"asr": 0.4}, "failure_point", "chi-squared"),
        ({"score": -2.0}, "asr_score", "Kolmogorov-Smirnov"),
        ({"turns": 9}, "turns_per_dialogue", "Kolmogorov-Smirnov"),
        ({"response": None}, "missing_fields", "chi-squared"),
    ],
)
def test_what_has_drifted_is_named_and_nothing_else(change: dict[str, Any], quantity: str, test: str) -> None:
    logged = dict.fromkeys(("response", "action", "status", "domain", "device", "locale"), "said")
    found = drifts(opened(300, seed=0, **{**logged, **change}), opened(300, seed=1, **logged))
    assert drifted(found, threshold=0.1) == [quantity]
    assert named(found, quantity).test == test


def test_a_large_index_on_few_rows_is_chance() -> None:
    found = drifts(opened(4, seed=0, turns=2), opened(4, seed=8, turns=2))
    assert max(each.psi for each in found.drifts) > LARGE
    assert not drifted(found)


@pytest.mark.parametrize("quantity", ["failure_point", "failure_point_confidence"])
def test_turns_that_say_the_same_count_once(quantity: str) -> None:
    alone, repeated = (
        named(drifts(*(opened(200, seed=seed, turns=1, repeated=times) for seed in (0, 1))), quantity)
        for times in (1, 10)
    )
    assert repeated.rows == 10 * alone.rows
    assert repeated.p_value == pytest.approx(alone.p_value, rel=0.1)


def test_the_bins_are_shares_of_both_sides() -> None:
    cells = named(drifts(opened(300, seed=0), opened(300, seed=1)), "failure_point_confidence").cells
    assert [cell.reference_share for cell in cells] == pytest.approx([0.1] * 10, abs=0.01)
    assert sum(cell.share for cell in cells) == pytest.approx(1)


def test_what_one_side_does_not_have_is_not_compared() -> None:
    unread = opened(50, seed=1)
    unread.connection.execute("UPDATE turns SET asr = NULL, nlu = NULL, entities = NULL")
    found = drifts(opened(50, seed=0), unread)
    assert {"asr_score", "missing_fields"} <= set(found.not_compared)
    assert "failure_point" not in found.not_compared


# The command


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """An output of calls from phones."""
    folder = tmp_path_factory.mktemp("phones")
    log = folder / "log.jsonl"
    log.write_text(
        "\n".join(
            json.dumps({"dialogue_id": f"{number}", "device": "phone", "turns": [{"text": "stop"}]})
            for number in range(60)
        )
    )
    label.run(["--input", str(log), "--output", str(folder / "out"), "--model", str(tiny_model_dir), "--no-progress"])
    return folder / "out"


def test_a_drift_ends_with_3_and_is_written(
    phones: Path, labelled_output: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "drift.json"
    folders = ["--labels", str(phones), "--reference", str(labelled_output.labels)]
    assert main(["drift", *folders, "--output", str(written)]) == 3
    said = capsys.readouterr()
    [sentence] = said.err.splitlines()
    assert "have drifted from" in sentence
    assert "device" in sentence
    assert "→ 100.0%" in said.out
    report = json.loads(written.read_bytes())
    assert "device" in report["drifted"]
    assert report["threshold"] == MODERATE


def test_nothing_has_drifted_from_itself_and_mlflow_says_so(phones: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folders = ["--labels", str(phones), "--reference", str(phones)]
    assert main(["drift", *folders, "--mlflow-tracking-uri", uri]) == 0
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    [logged] = client.search_runs([client.get_experiment_by_name("faultline-drift").experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["drifted"] == 0
    assert logged.data.metrics["psi/device"] == 0
    assert [each.path for each in client.list_artifacts(logged.info.run_id)] == ["drift.json"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--labels", "nowhere", "--reference", "nowhere"], "There is no folder "),
        (["--labels", "a", "--reference", "b", "--threshold", "0"], "'0' is not a number greater than 0"),
        (["--labels", "a", "--reference", "b", "--output", "no/such/file.json"], "must be a file in a local folder"),
        (["--labels", "a"], "required: --reference"),
    ],
)
def test_a_mistake_is_one_sentence(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", *argv]) == 2
    [sentence] = capsys.readouterr().err.splitlines()
    assert said in sentence
