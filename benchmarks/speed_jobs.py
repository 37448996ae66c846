"""Whole jobs, each in a process of its own: what `benchmarks/speed.py` compares.

    python -m benchmarks.speed_jobs label RESULT OPTIONS OF faultline label …
    python -m benchmarks.speed_jobs straightforward RESULT LOGS FORMAT ALL_LOGS OUTPUT
    python -m benchmarks.speed_jobs compare RESULT LOGS FORMAT ALL_LOGS OUTPUT STRAIGHTFORWARD_OUTPUT …

- `label` is `faultline label`, with a clock on the outermost call of any neural network.
- `straightforward` is what one writes with Beam's own parts: read the lines, parse, RunInference with the stock PyTorch
  handler around `benchmarks.plain_model`, a Parquet file of each table. It labels LOGS with the ontology of ALL_LOGS.
- `compare` looks for the turns of LOGS that the two label differently, and how sure the straightforward one is of them.

RESULT is a JSON file. Model loading is in no figure.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
import pyarrow.dataset as ds
import torch
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
from apache_beam.options.pipeline_options import PipelineOptions
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from benchmarks.plain_model import PlainModel, margins
from benchmarks.speed_encoders import loading_seconds
from labelers.model import Model
from pipelines import label
from pipelines.logs import logged_ontology, read_logs
from pipelines.options import LOCAL_RUNNER
from pipelines.plan import find_sources
from pipelines.tracking import resolve_model
from schemas.formats import DialogueFormat, get_format
from schemas.labels import TABLES, DialogueLabels, GoalLabels, Label, Provenance, TurnLabels, to_tables
from schemas.log import Dialogue
from schemas.ontology import Ontology

LABELLED = ("turns", "goals", "dialogues")
NEAR = 0.02
"""Distance from a threshold, in probability, within which bf16 may decide otherwise than float32."""


# faultline label


class NetworkClock:
    """Seconds that this process spends in neural networks, from when it is made."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._thread = threading.local()
        register_module_forward_pre_hook(self._enter)
        register_module_forward_hook(self._leave, always_call=True)

    def _enter(self, *_: object) -> None:
        depth = getattr(self._thread, "depth", 0)
        if depth == 0:
            self._thread.started = time.perf_counter()
        self._thread.depth = depth + 1

    def _leave(self, *_: object) -> None:
        self._thread.depth -= 1
        if self._thread.depth == 0:
            self.seconds += time.perf_counter() - self._thread.started


def run_label(options: Sequence[str]) -> dict[str, Any]:
    """Runs `faultline label`: its turns, the seconds of the run, of each of its stages and of the networks."""
    clock = NetworkClock()
    summary = label.run(options)
    assert summary is not None
    return {
        "turns": summary.turns,
        "seconds": summary.wall_seconds,
        "stages": summary.seconds,
        "networks": clock.seconds,
    }


# The straightforward job


class DialogueHandler(PytorchModelHandlerTensor):  # type: ignore[misc]
    """The stock handler; only its count of a batch's bytes takes elements for tensors."""

    def get_num_bytes(self, batch: Sequence[Dialogue]) -> int:
        return sum(map(sys.getsizeof, batch))


def _label_batch(
    batch: Sequence[Dialogue],
    model: PlainModel,
    device: str,
    inference_args: Mapping[str, Any],
    model_id: str | None = None,
) -> list[PredictionResult]:
    labels = model.label(batch, inference_args["ontology"])
    return [PredictionResult(*each, model_id) for each in zip(batch, labels, strict=True)]


def _parse(line: str, format_name: str) -> list[Dialogue]:
    log_format = get_format(format_name)
    assert isinstance(log_format, DialogueFormat)
    return log_format.parse(line.encode())


def _rows(result: PredictionResult, table: str) -> list[dict[str, Any]]:
    run = Provenance(run_id="straightforward", model_uri="builtin", model_version="")
    return to_tables([result.inference], run)[table].to_pylist()  # type: ignore[no-any-return]


def run_straightforward(
    logs: Path, log_format: str, model_folder: Path, ontology: Ontology, output: Path
) -> dict[str, Any]:
    """Labels a file of lines into `output`; gives the turns and the seconds."""
    output.mkdir(parents=True)
    state = output / "state.pt"
    torch.save(PlainModel.load(model_folder).state_dict(), state)
    handler = DialogueHandler(
        state_dict_path=str(state),
        model_class=PlainModel.load,
        model_params={"folder": model_folder},
        inference_fn=_label_batch,
    )
    started = time.perf_counter()
    made = beam.Pipeline(LOCAL_RUNNER, options=PipelineOptions([]))
    labelled = (
        made
        | "Read" >> beam.io.ReadFromText(str(logs))
        | "Parse" >> beam.FlatMap(_parse, log_format)
        | "Label" >> RunInference(handler, inference_args={"ontology": ontology})
    )
    for table in LABELLED:
        _ = (
            labelled
            | f"Rows of {table}" >> beam.FlatMap(_rows, table)
            | f"Write {table}"
            >> WriteToParquet(str(output / table / "part"), TABLES[table], file_name_suffix=".parquet")
        )
    result = made.run()
    result.wait_until_finish()
    seconds = time.perf_counter() - started - loading_seconds(result)
    return {"turns": ds.dataset(output / "turns").count_rows(), "seconds": seconds}


# Do they agree?


class Difference(NamedTuple):
    """Where two outputs decide a label of a turn otherwise, or one abstains from it and the other does not."""

    turn: int
    label: Label
    of_abstention: bool
    follows: bool
    """It follows from an earlier difference in the goals, after which these are numbered and judged otherwise."""


def read_labels(outputs: Sequence[Path]) -> dict[str, DialogueLabels]:
    """The labels of these outputs, by dialogue."""
    rows = {
        table: [row for output in outputs for row in ds.dataset(output / table).to_table().to_pylist()]
        for table in LABELLED
    }
    found = {row["dialogue_id"]: row | {"turns": [], "goals": []} for row in rows["dialogues"]}
    for table in ("turns", "goals"):
        for row in rows[table]:
            found[row["dialogue_id"]][table].append(row)
    for each in found.values():
        each["turns"].sort(key=lambda row: row["turn_index"])
    return msgspec.convert(found, dict[str, DialogueLabels])


def differences(ours: DialogueLabels, theirs: DialogueLabels) -> Iterator[Difference]:
    """Where the labels of one dialogue differ."""
    goals = [{goal.goal_id: goal for goal in labels.goals} for labels in (ours, theirs)]
    same_goals = True
    for index, turns in enumerate(zip(ours.turns, theirs.turns, strict=True)):
        both = [goals_of[turn.goal_id] for goals_of, turn in zip(goals, turns, strict=True)]
        same_turns = both[0].turn_indexes == both[1].turn_indexes
        one, other = (_decisions(turn, goal) for turn, goal in zip(turns, both, strict=True))
        for each in Label:
            abstains = [each in turn.abstained for turn in turns]
            follows = not (same_goals if each is Label.GOAL else same_turns or each is not Label.SUCCESS)
            if one[each] != other[each]:
                yield Difference(index, each, False, follows)
            elif abstains[0] != abstains[1]:
                yield Difference(index, each, True, follows)
        same_goals &= one[Label.GOAL] == other[Label.GOAL]


def _decisions(turn: TurnLabels, goal: GoalLabels) -> dict[Label, object]:
    return {
        Label.GOAL: turn.goal_id,
        Label.SUCCESS: goal.success,
        Label.INTENT: turn.intent,
        Label.SLOTS: sorted((slot.name, slot.value, slot.start or -1) for slot in turn.slots),
        Label.FAILURE_POINT: turn.failure_point,
        Label.REPHRASE: turn.rephrase_of,
    }


def run_compare(
    dialogues: Sequence[Dialogue], ours: Path, theirs: Sequence[Path], model: Model, ontology: Ontology
) -> dict[str, Any]:
    """How many turns differ, in which labels, and how many of the differences are of a label that was sure."""
    labels, plain = read_labels([ours]), read_labels(theirs)
    changed: Counter[str] = Counter()
    decided = different = far = 0
    farthest = 0.0
    for dialogue in dialogues:
        one, other = labels[dialogue.dialogue_id], plain[dialogue.dialogue_id]
        found = list(differences(one, other))
        different += len({each.turn for each in found})
        decided += len({each.turn for each in found if not each.of_abstention})
        changed.update(f"abstention from {each.label}" if each.of_abstention else each.label for each in found)
        sure = margins(model, dialogue, other, ontology) if found else []
        for each in found:
            margin = sure[each.turn][each.label]
            distance = min(margin.decision, margin.abstention) if each.of_abstention else margin.decision
            if not each.follows:
                farthest = max(farthest, distance)
                far += distance > NEAR
    moved = [
        abs(a.failure_point_probabilities[point] - b.failure_point_probabilities[point])
        for name in plain
        for a, b in zip(labels[name].turns, plain[name].turns, strict=True)
        for point in a.failure_point_probabilities
    ]
    return {
        "turns": sum(len(dialogue.turns) for dialogue in dialogues),
        "different_turns": different,
        "differently_decided_turns": decided,
        "differences": dict(changed),
        "far_differences": far,
        "farthest": farthest,
        "largest_move": max(moved, default=0.0),
    }


def main(argv: Sequence[str]) -> None:
    """Runs one job and writes what came of it."""
    job, result, *rest = argv
    if job == "label":
        found = run_label(rest)
    else:
        logs, log_format, all_logs, *outputs = rest
        model_folder = resolve_model("builtin", None)
        ontology = (
            logged_ontology(find_sources([all_logs]), get_format(log_format)) or PlainModel.load(model_folder).ontology
        )
        if job == "straightforward":
            found = run_straightforward(Path(logs), log_format, model_folder, ontology, Path(outputs[0]))
        else:
            ours, *theirs = (Path(output) for output in outputs)
            dialogues = read_logs([logs], log_format).dialogues
            found = run_compare(dialogues, ours, theirs, PlainModel.load(model_folder), ontology)
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
