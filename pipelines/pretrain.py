"""`faultline pretrain`: teaches both encoders from logs that nobody annotated, for `faultline train` to start from.

The tasks are those of `labelers.pretraining`. Of each input only the dialogues are read that `faultline train` would
train on (`pipelines.logs.part_of`), so that what is held out stays unseen. The run is seeded, leaves a checkpoint every
few minutes, and the same command goes on from it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import torch
from rich.console import Console

from labelers.learning import Source
from labelers.pretraining import Pretrainer, PretrainingConfig
from pipelines import storage
from pipelines.errors import UserError
from pipelines.logs import Part, part_of, read_logs
from pipelines.options import OptionParser, seed, whole_number
from pipelines.simulation.garble import Garbler
from pipelines.tracking import default_tracking_uri, log_training_run, model_name
from pipelines.training_run import (
    CHECKPOINT,
    Sizes,
    add_inputs,
    add_sizes,
    alone,
    digest,
    each_input,
    is_model,
    learn,
    new_model,
    sizes,
    written,
)
from schemas.ontology import Ontology

PRETRAINING = "pretraining.json"


@dataclass(frozen=True)
class PretrainSettings:
    """All of a run's options."""

    inputs: tuple[tuple[str, str, float], ...]
    """pattern, format and passes of each"""
    output: str
    sizes: Sizes
    seed: int
    tracking_uri: str
    experiment: str
    name: str
    threads: int | None


@dataclass(frozen=True)
class PretrainSummary:
    """What came out."""

    model_version: str
    folder: Path
    steps: int
    losses: dict[str, float]
    """of each task at the end, averaged over some twenty steps"""


def run(argv: Sequence[str] | None = None) -> PretrainSummary:
    """Pretrains by command line. Raises `UserError` and `RunFailed`."""
    return pretrain(parse(argv))


def parse(argv: Sequence[str] | None) -> PretrainSettings:
    """The settings that the command line asks for. Raises `UserError`."""
    options = _parser().parse_args(argv)
    formats = each_input("input-format", options.input_format, "jsonl", options.input)
    passes = each_input("passes", options.passes, 1.0, options.input)
    if "://" in options.output:
        raise UserError(f"--output {options.output} must be a local folder: a model is written there file by file.")
    if is_model(options.init):
        raise UserError(f"--init {options.init} is a whole model, which knows its labels: start from a words encoder.")
    return PretrainSettings(
        inputs=tuple(zip(options.input, formats, passes, strict=True)),
        output=storage.absolute(options.output),
        sizes=sizes(options),
        seed=options.seed,
        tracking_uri=options.mlflow_tracking_uri or default_tracking_uri(storage.absolute(options.output)),
        experiment=options.experiment,
        name=options.name,
        threads=options.threads,
    )


def pretrain(settings: PretrainSettings) -> PretrainSummary:
    """Pretrains, saves and registers a model. Raises `JobError`."""
    with alone(settings.output) as folder:
        return _pretrain(settings, folder)


def _pretrain(settings: PretrainSettings, folder: Path) -> PretrainSummary:
    started = time.monotonic()
    console = Console(stderr=True, markup=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    sources = _sources(settings, console)
    config = PretrainingConfig(seed=settings.seed)
    model = new_model(settings.sizes, sources, settings.seed)
    pretrainer = Pretrainer(model, sources, config, Garbler())
    checkpoint = Path(settings.output, CHECKPOINT)
    history = learn(pretrainer, checkpoint, _fingerprint(settings, sources), console)
    pretrainer.finish()
    last = history[-1] if history else {}
    losses = {name.removeprefix("loss_"): loss for name, loss in last.items() if name != "step"}
    record = {
        "steps": pretrainer.step,
        "skipped_steps": pretrainer.skipped,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "config": asdict(config),
        "init": {**asdict(settings.sizes), "init": Path(settings.sizes.init).name},
        "sources": [{"name": each.name, "dialogues": len(each.dialogues), "passes": each.passes} for each in sources],
        "losses": losses,
    }
    with written(folder) as draft:
        version = model.save(draft)
        content = msgspec.json.encode({"model_version": version, **record})
        (draft / PRETRAINING).write_bytes(msgspec.json.format(content, indent=1) + b"\n")
    registered = log_training_run(
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        run_name=f"pretrain {version}",
        parameters={**asdict(config), "init": settings.sizes.init, "inputs": ", ".join(each.name for each in sources)},
        history=history,
        model_folder=folder,
        registered_name=settings.name,
    )
    checkpoint.unlink(missing_ok=True)
    console.print(
        f"Model {version} is in {folder}, registered as {registered.name} version {registered.version}. It knows no "
        f"label yet: faultline train --init {folder}"
    )
    return PretrainSummary(version, folder, pretrainer.step, losses)


def _sources(settings: PretrainSettings, console: Console) -> list[Source]:
    sources = []
    for pattern, form, passes in settings.inputs:
        logs = read_logs([pattern], form)
        dialogues = [each for each in logs.dialogues if part_of(each) == Part.TRAIN]
        if not dialogues:
            raise UserError(f"--input {pattern} has no dialogue to learn from ({logs.rejected.total()} rejected).")
        sources.append(Source(f"{form}:{Path(pattern).name}", dialogues, Ontology(), passes))
        console.print(f"{sources[-1].name}: {len(dialogues)} dialogues, {logs.rejected.total()} rejected")
    return sources


def _fingerprint(settings: PretrainSettings, sources: Sequence[Source]) -> str:
    """Of all that the weights depend on."""
    return json.dumps([digest(sources), asdict(settings.sizes), settings.seed])


def _parser() -> OptionParser:
    parser = OptionParser("faultline pretrain", (__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add_inputs(parser)
    add_sizes(parser)
    add("--seed", type=seed, default=1, help="seed of everything random, less than 2^32 (default: 1)")
    add("--threads", type=whole_number, default=None, help="CPU threads (default: all cores)")
    add("--mlflow-tracking-uri", default=None, metavar="URI", help="default: a SQLite file in the output folder")
    add("--experiment", default="faultline", help="MLflow experiment (default: faultline)")
    add(
        "--name",
        type=model_name,
        default="faultline-pretrained",
        help="name in the model registry (default: faultline-pretrained)",
    )
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["pretrain", *sys.argv[1:]]))
