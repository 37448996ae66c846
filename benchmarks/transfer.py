"""What simulated logs teach the model about real ones.

    python benchmarks/transfer.py --simulated 'simulated/*.jsonl.gz' --real dstc2/train.jsonl.gz --real-format dstc2
        --annotations dstc2/train_failure_points.jsonl.gz --output transfer

Trains the model on simulated logs alone, on real ones alone, and on both: first on the simulated ones, then, from the
weights that this gives, on the real ones, as often as without. The real dialogues are dealt into two halves, and each
is scored by the models that saw the other alone, so that the rare failure points count in full. Printed are F1 at the
most probable failure point and average precision, over all real dialogues, with what the simulated logs change in these
and its bootstrap interval of 95 % over dialogues. What is there of a training is used, or goes on.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score, f1_score

from labelers.failure_point import POINTS
from labelers.model import MANIFEST, Model
from pipelines.cli import guarded
from pipelines.logs import annotate, read_logs
from pipelines.scoring import FailurePoints
from schemas.log import Dialogue
from schemas.ontology import infer

Floats = npt.NDArray[np.float64]

_HALVES = 2
_RESAMPLES = 1_000
_FEWEST = 20
"""Turns with a failure point under which its scores mean nothing."""


def main() -> None:
    """Trains, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--simulated", required=True, metavar="GLOB", help="simulated logs, canonical jsonl")
    parser.add_argument("--real", required=True, metavar="FILE", help="annotated logs of a real assistant")
    parser.add_argument("--real-format", default="jsonl", metavar="NAME", help="their format (default: jsonl)")
    parser.add_argument("--annotations", metavar="FILE", help="their failure points, as of faultline evaluate")
    parser.add_argument("--simulated-passes", type=float, default=0.5, metavar="N", help="default: %(default)s")
    parser.add_argument("--real-passes", type=float, default=5.0, metavar="N", help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the trainings go there")
    options = parser.parse_args()
    output: Path = options.output
    real = read_logs([options.real], options.real_format).dialogues
    if options.annotations:
        annotate(real, options.annotations)
    halves = [[each for each in real if _half(each) == number] for number in range(_HALVES)]
    simulated = _trained(output / "simulated", options.simulated, options.simulated_passes)
    models: dict[str, list[Path]] = {"simulated": [simulated] * _HALVES, "real": [], "both": []}
    for number, dialogues in enumerate(halves):
        logs = _write(output / f"half-{number}.jsonl.gz", dialogues)
        models["real"].append(_trained(output / f"real-{number}", logs, options.real_passes))
        models["both"].append(_trained(output / f"both-{number}", logs, options.real_passes, "--init", str(simulated)))
    asked = [FailurePoints.of(half) for half in halves]
    # Each half is scored by the models of the other.
    found = {
        name: np.concatenate(
            [
                each.probabilities(Model.load(path).label(half, infer(half)))
                for path, half, each in zip(reversed(paths), halves, asked, strict=True)
            ]
        )
        for name, paths in models.items()
    }
    truth = np.concatenate([each.truth for each in asked])
    dialogue = np.concatenate([np.array(asked[0].dialogues), np.array(asked[1].dialogues) + len(halves[0])])
    Console(width=140).print(_table(found, truth, dialogue))


def _half(dialogue: Dialogue) -> int:
    # No part of `part_of`, which is another hash.
    return zlib.crc32(dialogue.dialogue_id.encode()) % _HALVES


def _write(path: Path, dialogues: Sequence[Dialogue]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(msgspec.json.Encoder().encode_lines(dialogues), mtime=0))
    return str(path)


def _trained(output: Path, logs: str, passes: float, *options: str) -> Path:
    """The folder of the model that `faultline train` made of the logs, which goes on with what was begun."""
    if not (output / "model" / MANIFEST).exists():
        command = [sys.executable, "-m", "pipelines.cli", "train", "--input", logs, "--passes", str(passes)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([*command, "--output", str(output), *options], check=True, env=environment)
    return output / "model"


def _table(found: Mapping[str, Floats], truth: npt.NDArray[np.int64], dialogue: npt.NDArray[np.int64]) -> Table:
    counts = np.bincount(truth, minlength=len(POINTS))
    counted = [number for number in range(len(POINTS)) if counts[number] >= _FEWEST]
    columns = [f"{POINTS[number]} ({counts[number]:,} turns)" for number in counted]
    shown = Table("trained on", "", *columns, "any failure", "macro-F1")
    scores = {name: _scores(each, truth, counted) for name, each in found.items()}
    for name, (f1, precision) in scores.items():
        shown.add_row(name, "F1", *(f"{each:.3f}" for each in f1))
        shown.add_row("", "average precision", *(f"{each:.3f}" for each in precision), "", end_section=True)
    rng = np.random.default_rng(1)
    turns_of = [np.flatnonzero(dialogue == number) for number in range(int(dialogue.max()) + 1)]
    changes: list[list[Floats]] = [[], []]
    for _ in range(_RESAMPLES):
        rows = np.concatenate([turns_of[each] for each in rng.integers(len(turns_of), size=len(turns_of))])
        alone, both = (_scores(found[name][rows], truth[rows], counted) for name in ("real", "both"))
        for number in range(2):
            changes[number].append(both[number] - alone[number])
    for number, (name, kind) in enumerate((("both less real", "F1"), ("", "average precision"))):
        low, high = np.quantile(np.array(changes[number]), [0.025, 0.975], axis=0)
        difference = scores["both"][number] - scores["real"][number]
        shown.add_row(
            name, kind, *(f"{a:+.3f} [{b:+.3f}, {c:+.3f}]" for a, b, c in zip(difference, low, high, strict=True))
        )
    return shown


def _scores(probabilities: Floats, truth: npt.NDArray[np.int64], counted: Sequence[int]) -> tuple[Floats, Floats]:
    """F1 of each counted failure point, of any failure, and their mean; average precision of the first two."""
    most = probabilities.argmax(axis=1)
    each = f1_score(truth, most, labels=list(counted), average=None, zero_division=0.0)
    any_failure = f1_score(truth != 0, most != 0, zero_division=0.0)
    precision = [average_precision_score(truth == number, probabilities[:, number]) for number in counted]
    precision.append(average_precision_score(truth != 0, 1.0 - probabilities[:, 0]))
    return np.array([*each, any_failure, each.mean()]), np.array(precision)


if __name__ == "__main__":
    sys.exit(guarded(main))
