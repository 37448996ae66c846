"""What gives the failure points of simulated logs away, and how like real logs they are.

    python benchmarks/simulated_logs.py --input 'logs/*.jsonl.gz' [--model DIR] [--real dstc2/train.jsonl.gz
        --real-format dstc2 --annotations dstc2/train_failure_points.jsonl.gz]

- *One field*: for each failure point the best F1 that a threshold on one score, the presence of one word of the
  request or the response, or one value of status or action can reach. Field and threshold are chosen on the very
  turns that they are scored on, so a classifier that sees no more than this does worse.
- *The model*, on the same turns: F1 of `failure_point`. A model that was trained on logs of this seed knows them:
  give logs of another.
- *Likeness*: how the scores of the simulated logs, of its devices and of its telephone calls, lie beside those of the
  real one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score

from labelers.failure_point import POINTS
from labelers.model import Model
from pipelines.cli import guarded
from pipelines.logs import annotate, read_logs
from pipelines.tracking import resolve_model
from schemas.log import Dialogue, FailurePoint, Turn
from schemas.ontology import infer

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.str_]

SCORES: Mapping[str, Callable[[Turn], float | None]] = {
    "wake score": lambda turn: turn.wake_score,
    "ASR score": lambda turn: turn.asr[0].score if turn.asr else None,
    "ASR margin": lambda turn: _margin([each.score for each in turn.asr]),
    "NLU score": lambda turn: turn.nlu[0].score if turn.nlu else None,
    "NLU margin": lambda turn: _margin([each.score for each in turn.nlu]),
    "ER score": lambda turn: turn.entities[0].score if turn.entities else None,
}
"""The scores of a turn's components, each None where the log has none."""


_NO_WORDS = frozenset({"", "noise", "sil", "unintelligible", "cough", "static", "inaudible"})
"""Transcripts of what are no words, the simulator's and DSTC2's."""


def _margin(scores: Sequence[float | None]) -> float | None:
    return scores[0] - scores[1] if len(scores) > 1 and scores[0] is not None and scores[1] is not None else None


def best_of_scores(turns: Sequence[Turn], fails: npt.NDArray[np.bool_]) -> tuple[float, str]:
    """The best F1 of a threshold on one score, from either side, and the score's name."""
    best = (0.0, "none")
    for name, score in SCORES.items():
        values = np.array([np.nan if (value := score(turn)) is None else value for turn in turns])
        known = ~np.isnan(values)
        if not known.any():
            continue
        for sign in (1, -1):
            # A turn without the score is never found, which costs recall.
            ranked = np.where(known, sign * values, np.nanmin(sign * values[known]) - 1)
            precision, recall, _ = precision_recall_curve(fails, ranked)
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            best = max(best, (float(f1.max()), name))
    return best


def best_of_values(values: Sequence[Iterable[str]], fails: npt.NDArray[np.bool_]) -> tuple[float, str]:
    """The best F1 of one value that a turn has or has not, and the value."""
    seen: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for each, failed in zip(values, fails.tolist(), strict=True):
        for value in set(each):
            seen[value][failed] += 1
    count = int(fails.sum())
    return max(((2 * hits / (hits + others + count), value) for value, (others, hits) in seen.items()), default=(0, ""))


def _words(turn: Turn) -> list[str]:
    response = (turn.response.text if turn.response else None) or ""
    return [
        *(f"user: {word}" for word in (turn.text or "").lower().split()),
        *(f"assistant: {word}" for word in response.lower().split()),
    ]


def _outcome(turn: Turn) -> list[str]:
    if turn.response is None:
        return ["no response"]
    return [f"status {turn.response.status}", f"action {turn.response.action}"]


def leaks(dialogues: Sequence[Dialogue], model: Model | None) -> Table:
    """A row a failure point: what one field reaches, and what the model does."""
    turns, truth = annotated(dialogues)
    labelled = predicted(dialogues, model) if model else None
    shown = Table("failure point", "turns", "one score", "one word", "status or action", "always", "model")
    for point in POINTS[1:]:
        fails = truth == str(point)
        if not fails.any():
            continue
        cells = [best_of_scores(turns, fails)]
        cells += [best_of_values([field(turn) for turn in turns], fails) for field in (_words, _outcome)]
        shown.add_row(
            str(point),
            f"{fails.sum():,}",
            *(f"{f1:.2f} ({what})" for f1, what in cells),
            f"{2 * fails.mean() / (1 + fails.mean()):.2f}",
            "" if labelled is None else f"{f1_score(fails, labelled == str(point)):.2f}",
        )
    if labelled is not None:
        macro = f1_score(truth, labelled, labels=[str(point) for point in POINTS], average="macro")
        shown.caption = f"The model's macro-F1 over all six: {macro:.3f}"
    return shown


def likeness(simulated: Sequence[Dialogue], real: Sequence[Dialogue]) -> Table:
    """Distributions of scores, and how well each ranks the failures of its component, in each kind of log."""
    shown = Table("", "simulated devices", "simulated calls", "real")
    # A call opens with a prompt.
    logs = ([each for each in simulated if not each.opening], [each for each in simulated if each.opening], real)
    both = [annotated(log) for log in logs]
    shown.add_row("turns", *(f"{len(turns):,}" for turns, _ in both))
    shown.add_row(
        "correct, wake, asr, nlu, er, result, % of turns",
        *(", ".join(f"{100 * (truth == str(point)).mean():.1f}" for point in POINTS) for _, truth in both),
    )
    shown.add_row("turns with a word recognised wrongly", *(_misheard(turns) for turns, _ in both))
    for name, points in (
        ("ASR score", (FailurePoint.CORRECT, FailurePoint.ASR, FailurePoint.WAKE)),
        ("NLU score", (FailurePoint.CORRECT, FailurePoint.WAKE)),
    ):
        for point in points:
            shown.add_row(
                f"{name}, {point}: 5 %, 50 %, 95 %", *(_quantiles(turns, truth, name, point) for turns, truth in both)
            )
    for point in (FailurePoint.CORRECT, FailurePoint.WAKE):
        shown.add_row(
            f"seconds since the turn before, {point}: 5 %, 50 %, 95 %", *(_waiting(log, point) for log in logs)
        )
    shown.add_row("words of a wake: 50 %, 95 %", *(_words_of_wakes(*each) for each in both))
    shown.add_row("sounds that are no words: acted on", *(_noise(*each) for each in both))
    for name, point in (
        ("ASR score", FailurePoint.ASR),
        ("ASR margin", FailurePoint.ASR),
        ("NLU score", FailurePoint.NLU),
        ("NLU score", FailurePoint.ASR),
        ("ASR score", FailurePoint.WAKE),
        ("ASR margin", FailurePoint.WAKE),
        ("NLU score", FailurePoint.WAKE),
        ("wake score", FailurePoint.WAKE),
        ("ER score", FailurePoint.ER),
    ):
        shown.add_row(f"AUC of the {name} for {point}", *(_auc(turns, truth, name, point) for turns, truth in both))
    shown.add_row("barge-in, % of the turns with each failure point", *(_barge_in(*each) for each in both))
    return shown


def _misheard(turns: Sequence[Turn]) -> str:
    said = [(turn.annotation and turn.annotation.transcript, turn.text) for turn in turns]
    known = [(transcript.lower().split(), (text or "").lower().split()) for transcript, text in said if transcript]
    return f"{np.mean([one != other for one, other in known]):.0%}" if known else "not annotated"


def _quantiles(turns: Sequence[Turn], truth: Truth, name: str, point: FailurePoint) -> str:
    return _spread(_known(turns, truth, name, point))


def _spread(values: Sequence[float] | Floats) -> str:
    return ", ".join(f"{each:.2f}" for each in np.quantile(values, [0.05, 0.5, 0.95])) if len(values) else "not logged"


def _waiting(dialogues: Sequence[Dialogue], point: FailurePoint) -> str:
    return _spread(
        [
            (turn.started_at - before.ended_at).total_seconds()
            for dialogue in dialogues
            for before, turn in itertools.pairwise(dialogue.turns)
            if turn.annotation and turn.annotation.failure_point is point and turn.started_at and before.ended_at
        ]
    )


def _words_of_wakes(turns: Sequence[Turn], truth: Truth) -> str:
    counts = [len((turn.text or "").split()) for turn, each in zip(turns, truth, strict=True) if each == "wake"]
    return ", ".join(f"{each:.0f}" for each in np.quantile(counts, [0.5, 0.95])) if counts else "none"


def _noise(turns: Sequence[Turn], truth: Truth) -> str:
    said = [turn.annotation.transcript if turn.annotation else None for turn in turns]
    acted = [
        each == "wake" for each, words in zip(truth, said, strict=True) if words is not None and words in _NO_WORDS
    ]
    return f"{np.mean(acted):.0%} of {len(acted)}" if acted else "none"


def _auc(turns: Sequence[Turn], truth: Truth, name: str, point: FailurePoint) -> str:
    """Probability that the score of a turn with this failure point is under that of a correct one."""
    failed, correct = (_known(turns, truth, name, each) for each in (point, FailurePoint.CORRECT))
    if not len(failed) or not len(correct):
        return "not logged"
    return f"{roc_auc_score([1] * len(failed) + [0] * len(correct), -np.concatenate([failed, correct])):.2f}"


def _known(turns: Sequence[Turn], truth: Truth, name: str, point: FailurePoint) -> Floats:
    values = [SCORES[name](turn) for turn, each in zip(turns, truth, strict=True) if each == str(point)]
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _barge_in(turns: Sequence[Turn], truth: Truth) -> str:
    shares = []
    for point in POINTS:
        flags = [bool(turn.barge_in) for turn, each in zip(turns, truth, strict=True) if each == str(point)]
        shares.append(f"{point} {100 * np.mean(flags):.0f}" if flags else f"{point} -")
    return ", ".join(shares)


def annotated(dialogues: Sequence[Dialogue]) -> tuple[list[Turn], Truth]:
    """The turns with an annotated failure point, and these."""
    turns = [
        turn
        for dialogue in dialogues
        for turn in dialogue.turns
        if turn.annotation and turn.annotation.failure_point is not None
    ]
    return turns, np.array([str(turn.annotation and turn.annotation.failure_point) for turn in turns])


def predicted(dialogues: Sequence[Dialogue], model: Model) -> Truth:
    """The model's failure points of the same turns."""
    return np.array(
        [
            str(label.failure_point)
            for dialogue, labels in zip(dialogues, model.label(dialogues, infer(dialogues)), strict=True)
            for turn, label in zip(dialogue.turns, labels.turns, strict=True)
            if turn.annotation and turn.annotation.failure_point is not None
        ]
    )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--input", action="append", required=True, help="simulated logs, canonical jsonl")
    parser.add_argument("--model", default="builtin", help="as of faultline label (default: builtin)")
    parser.add_argument("--real", help="annotated logs of a real assistant")
    parser.add_argument("--real-format", default="jsonl", help="their format (default: jsonl)")
    parser.add_argument("--annotations", help="their failure points, as of faultline evaluate")
    options = parser.parse_args()
    console = Console(width=160)
    simulated = read_logs(options.input, "jsonl").dialogues
    console.print(leaks(simulated, Model.load(resolve_model(options.model, None))))
    if options.real:
        real = read_logs([options.real], options.real_format).dialogues
        if options.annotations:
            annotate(real, options.annotations)
        console.print(likeness(simulated, real))


if __name__ == "__main__":
    sys.exit(guarded(main))
