"""The dataset card beside a labelled output: `OUTPUT/README.md`, in the form of Hugging Face's dataset cards.

Front matter in YAML, then Markdown: what the output is, what is in it, which runs and models made it, how good these
were measured to be, and what is known to be poor. It speaks of the whole output, every dataset in it, and is written
anew with each run. Everything in it follows from the manifests: the same runs give the same card.

https://huggingface.co/docs/hub/datasets-cards
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import msgspec

from labelers.model import Model
from pipelines import storage
from pipelines.publish import Manifest, ModelFacts
from pipelines.results import Counts, add
from schemas.labels import LABEL_SCHEMA_VERSION, TABLES, Label
from schemas.log import FailurePoint

CARD = "README.md"
MODEL_CARD, TRAINING = "MODEL_CARD.md", "training.json"

_MARK = "<!-- Dataset card by faultline label. Each run writes it anew: what is changed here by hand is lost. -->"
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
_NOT_MEASURED = "not measured"

_TEMPLATE = Template("""\
---
$front_matter
---
$mark

# Labelled dialogue logs

For every turn and goal in the logs of an assistant: intent, slots, whether the goal was reached and, where a turn
failed, which component failed first.

**The labels are machine-generated.** A model made them, people did not check them, and some of them are wrong; how many
is said [below](#models). A label that is named in `abstained` is not to be trusted.

## Tables

Parquet, schema version $schema_version, by Faultline $version. `faultline schema --table NAME` prints the columns and
what they mean.

$tables

The tables hold no text of the logs but slot values, and in `rejected` the column `raw`: the head of a record that could
not be read, which can hold what users said. `faultline query` shows the labels with the text beside them:

```bash
faultline query --labels . "SELECT text, intent, failure_point FROM turns WHERE failure_point <> 'correct'"
```

## Input

$runs

`runs/*.json` has the settings, and every file with its SHA-256. The data quality suites passed: what they checked in
the last run is in `validation.json`.

## What was found

$failure_points

Of the goals $reached were reached. These are counts of labels, not corrected for the errors that the model makes.

## Rejected

$rejected

## Models

A model abstains where its confidence is under the threshold of the label. Coverage is the share of turns where it does
not. *Measured* is what its training found on dialogues that were set aside for calibration.

$models

## Known limits

- The confidences were calibrated on dialogues like those that the model was trained on. On the logs of another
  assistant they are less true: annotate some hundred dialogues, and run `faultline evaluate --part all`.
- The model reads English, and reads the log, never the sound.
- In $shortened of the turns a text was too long to be read whole.
""")


class _Training(msgspec.Struct):
    """What is read of a model's training.json."""

    calibration: dict[str, dict[str, float]] = {}


def model_facts(model: Model, folder: Path) -> ModelFacts:
    """What the model and its folder say of its quality. Files that say nothing readable are as none."""
    card, training = folder / MODEL_CARD, folder / TRAINING
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    measured = _Training()
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, FileNotFoundError):
        measured = msgspec.json.decode(training.read_bytes(), type=_Training)
    return ModelFacts(
        thresholds={label: float(labeler.threshold) for label, labeler in model.labelers.items()},
        calibration=measured.calibration,
        quality=_section(text, "Quality"),
        limits=_section(text, "Where it is poor"),
    )


def is_free(output: str) -> bool:
    """Whether the card may be written: nothing is there, or an earlier card; never over a README of the user's."""
    path = storage.join(output, CARD)
    return not storage.exists(path) or _MARK.encode() in storage.read_bytes(path)


def card(manifests: Iterable[Manifest]) -> str:
    """The text of the card of an output that has these datasets."""
    # Imported here: it takes its time.
    from huggingface_hub import DatasetCardData

    runs = sorted(manifests, key=lambda each: (each.inputs, each.summary.input_format))
    counts = add(each.summary for each in runs)
    versions = dict.fromkeys(run.summary.model_version for run in runs)
    front_matter = DatasetCardData(
        pretty_name="Labelled dialogue logs",
        annotations_creators=["machine-generated"],
        size_categories=[_SIZES[min(max(len(str(counts.turns)) - 3, 0), len(_SIZES) - 1)]],
        tags=["dialogue", "failure-point-isolation", "faultline"],
        configs=[{"config_name": name, "data_files": f"{name}/**/*.parquet"} for name in TABLES],
    )
    return _TEMPLATE.substitute(
        front_matter=front_matter.to_yaml(),
        mark=_MARK,
        schema_version=LABEL_SCHEMA_VERSION,
        version=importlib.metadata.version("faultline"),
        tables=_tables(counts),
        runs=_runs(runs),
        failure_points=_failure_points(counts),
        reached=_share(counts.goals - counts.unreached_goals, counts.goals),
        rejected=_rejected(counts.rejected),
        models="\n\n".join(_model([run for run in runs if run.summary.model_version == each]) for each in versions),
        shortened=_share(counts.shortened_turns, counts.turns),
    )


def _tables(counts: Counts) -> str:
    rows = {
        "turns": (counts.turns, "a turn: one user request with the response that follows it"),
        "goals": (counts.goals, "a goal: one thing that the user wanted done"),
        "dialogues": (counts.dialogues, "a dialogue"),
        "rejected": (counts.rejected_rows, "a record of the logs that could not be read or labelled"),
    }
    return _table(
        ("table", "a row is", "rows", "files"),
        ((f"`{name}`", rows[name][1], f"{rows[name][0]:,}", f"`{name}/**/*.parquet`") for name in TABLES),
    )


def _runs(runs: Iterable[Manifest]) -> str:
    return _table(
        ("input", "format", "records", "dialogues", "turns", "rejected", "model version", "run"),
        (
            (
                " ".join(f"`{pattern}`" for pattern in run.inputs),
                run.summary.input_format,
                f"{run.summary.records:,}",
                f"{run.summary.dialogues:,}",
                f"{run.summary.turns:,}",
                f"{run.summary.rejected_rows:,}",
                run.summary.model_version,
                run.run_id,
            )
            for run in runs
        ),
    )


def _failure_points(counts: Counts) -> str:
    turns = {point: counts.failure_points.get(point, 0) for point in FailurePoint}
    return _table(
        ("failure point", "turns", "share"),
        ((f"`{point}`", f"{found:,}", _share(found, counts.turns)) for point, found in turns.items()),
    )


def _rejected(reasons: dict[str, int]) -> str:
    if not reasons:
        return "No record was rejected."
    return _table(
        ("reason", "rows"), ((f"`{reason}`", f"{found:,}") for reason, found in Counter(reasons).most_common())
    )


def _model(runs: Sequence[Manifest]) -> str:
    """What is known of one model, with its coverage in the runs that it made."""
    counts = add(run.summary for run in runs)
    facts = next((run.model for run in runs if run.model is not None), None) or ModelFacts()
    parts = [
        f"### `{runs[0].summary.model_uri}`, version {runs[0].summary.model_version}",
        _table(
            (
                "label",
                "threshold",
                "coverage here",
                "measured coverage",
                "measured precision there",
                "answers measured",
            ),
            (_quality(label, facts, counts) for label in Label),
        ),
    ]
    for said, section in (("Its quality, says its card", facts.quality), ("Where it is poor", facts.limits)):
        if section:
            parts += [f"{said}:", "\n".join(f"> {line}".rstrip() for line in section.splitlines())]
    return "\n\n".join(parts)


def _quality(label: Label, facts: ModelFacts, counts: Counts) -> tuple[str, ...]:
    measured = facts.calibration.get(label, {})
    return (
        f"`{label}`",
        f"{facts.thresholds[label]:.3f}" if label in facts.thresholds else "not recorded",
        _share(counts.turns - counts.abstained.get(label, 0), counts.turns),
        f"{measured['coverage']:.1%}" if "coverage" in measured else _NOT_MEASURED,
        f"{measured['precision']:.1%}" if "precision" in measured else _NOT_MEASURED,
        f"{measured['questions']:,.0f}" if "questions" in measured else _NOT_MEASURED,
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _section(text: str, heading: str) -> str | None:
    """What stands under a heading of the second level; None where there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else None
