"""`faultline train`: learns the labels from annotated logs and from feedback, and registers the model in MLflow.

Each input is one assistant's logs. They are divided by dialogue (`pipelines.logs.part_of`): most train, some set
temperatures and abstention thresholds, the rest is never looked at here and is for `faultline evaluate`.
What nobody annotated is learned from feedback: a survey's answer is the dialogue's success, and what users did next
tells of defects (`labelers.labelling_functions`, `labelers.label_model`).
The run is seeded, leaves a checkpoint every few minutes, and the same command goes on from it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.table import Table

from labelers.label_model import Supervision, supervise
from labelers.learning import Source
from labelers.model import Model, ModelError
from labelers.training import Trainer, TrainingConfig, calibrate, fit_evidence, noisy_targets
from pipelines import storage
from pipelines.errors import UserError
from pipelines.evaluation import NOTHING
from pipelines.logs import Part, annotate, is_annotated, part_of, read_logs, take_surveys
from pipelines.options import OptionParser, fraction, not_negative, seed, whole_number
from pipelines.tracking import (
    default_tracking_uri,
    log_training_run,
    model_alias,
    model_name,
    resolve_model,
)
from pipelines.training_run import (
    CHECKPOINT,
    Sizes,
    add_inputs,
    add_sizes,
    alone,
    digest,
    each_input,
    fit_numbers,
    is_model,
    learn,
    new_model,
    sizes,
    written,
)
from schemas.labels import Label
from schemas.log import Dialogue
from schemas.ontology import Ontology, OntologyError, infer, merge

DEFAULT_FEEDBACK_WEIGHT = 0.1
TRAINING = "training.json"


@dataclass(frozen=True)
class InputSettings:
    """One assistant's logs."""

    pattern: str
    format: str
    passes: float
    ontology: str | None
    feedback_weight: float


@dataclass(frozen=True)
class TrainSettings:
    """All of a run's options."""

    inputs: tuple[InputSettings, ...]
    annotations: tuple[str, ...]
    output: str
    sizes: Sizes
    init_share: float
    precision: float
    seed: int
    tracking_uri: str
    experiment: str
    name: str
    alias: str | None
    threads: int | None


@dataclass(frozen=True)
class TrainSummary:
    """What came out."""

    model_version: str
    folder: Path
    steps: int
    seconds: float
    calibration: dict[Label, dict[str, float]]


def run(argv: Sequence[str] | None = None) -> TrainSummary:
    """Trains by command line. Raises `UserError` and `RunFailed`."""
    return train(parse(argv))


def parse(argv: Sequence[str] | None) -> TrainSettings:
    """The settings that the command line asks for. Raises `UserError`."""
    options = _parser().parse_args(argv)
    formats = each_input("input-format", options.input_format, "jsonl", options.input)
    passes = each_input("passes", options.passes, 1.0, options.input)
    ontologies = each_input("ontology", options.ontology, "", options.input)
    weights = each_input("feedback-weight", options.feedback_weight, DEFAULT_FEEDBACK_WEIGHT, options.input)
    if "://" in options.output:
        raise UserError(f"--output {options.output} must be a local folder: a model is written there file by file.")
    if is_model(options.init):
        for name in ("layers", "vocabulary", "width"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is of a new model; --init {options.init} has its own: leave it out.")
    if options.init_share == 1:
        raise UserError("--init-share 1 must be less than 1: nothing would be learned.")
    if not 0 < options.precision < 1:
        raise UserError(f"--precision {options.precision:g} must be more than 0 and less than 1.")
    return TrainSettings(
        inputs=tuple(
            InputSettings(pattern, form, times, ontology or None, weight)
            for pattern, form, times, ontology, weight in zip(
                options.input, formats, passes, ontologies, weights, strict=True
            )
        ),
        annotations=tuple(options.annotations),
        output=storage.absolute(options.output),
        sizes=sizes(options),
        init_share=options.init_share,
        precision=options.precision,
        seed=options.seed,
        tracking_uri=options.mlflow_tracking_uri or default_tracking_uri(storage.absolute(options.output)),
        experiment=options.experiment,
        name=options.name,
        alias=options.alias,
        threads=options.threads,
    )


def train(settings: TrainSettings) -> TrainSummary:
    """Trains, calibrates, saves and registers a model. Raises `JobError`."""
    with alone(settings.output) as folder:
        return _train(settings, folder)


def _train(settings: TrainSettings, folder: Path) -> TrainSummary:
    started = time.monotonic()
    console = Console(stderr=True, markup=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    training, validation = _sources(settings, console)
    feedback = _feedback(training, console)
    config = TrainingConfig(precision=settings.precision, seed=settings.seed)
    model, is_new = _start(settings, training)
    if is_new and settings.init_share:
        raise UserError(
            f"--init-share keeps what a model has learned of labels, and --init {settings.sizes.init} has learned "
            "none: leave it out."
        )
    begun_from = model.version
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    training = [
        source._replace(targets=noisy_targets(model, source.dialogues, each.targets, anew=is_new))
        if each and each.turns
        else source
        for source, each in zip(training, feedback, strict=True)
    ]
    # Weighed as in the training part, which has more votes to learn that from. Of what failed only whether it did
    # counts here.
    validation = [
        source._replace(
            targets=noisy_targets(model, source.dialogues, supervise(source.dialogues, each.model).targets, anew=True)
        )
        if each and each.turns and source.dialogues
        else source
        for source, each in zip(validation, feedback, strict=True)
    ]
    fit_evidence(model, training, config, anew=is_new)
    trainer = Trainer(model, training, config)
    checkpoint = Path(settings.output, CHECKPOINT)
    history = learn(trainer, checkpoint, _fingerprint(settings, training, begun_from), console)
    trainer.keep(start, settings.init_share)
    trainer.finish()
    calibration = calibrate(model, validation, settings.precision)
    if unset := [label for label in Label if "threshold" not in calibration.get(label, {})]:
        console.print(
            f"The validation part has no annotated {', '.join(unset)}: "
            + (
                "temperatures and thresholds stay"
                if begun_from
                else "temperatures stay 1, and the model never abstains"
            )
            + (" those of the model that this one started from." if begun_from else " from these.")
        )
    if Label.FAILURE_POINT in unset and Label.FAILURE_POINT in calibration:
        by_feedback = calibration[Label.FAILURE_POINT]
        console.print(
            f"But feedback sets the temperature of failure points, to {by_feedback['temperature']:.2f}, and a turn is "
            f"one from a defect probability of {by_feedback['decision']:.2f} on."
        )
    with written(folder) as draft:
        version = model.save(draft)
        summary = TrainSummary(version, folder, trainer.step, time.monotonic() - started, calibration)
        _write_record(draft / TRAINING, settings, begun_from, feedback, trainer, summary)
    registered = log_training_run(
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        run_name=f"train {version}",
        parameters={
            **asdict(config),
            "init": settings.sizes.init,
            "init_share": settings.init_share,
            "inputs": ", ".join(source.name for source in training),
            "feedback_weights": ", ".join(f"{source.feedback_weight:g}" for source in training),
        },
        history=history,
        model_folder=folder,
        registered_name=settings.name,
        alias=settings.alias,
    )
    checkpoint.unlink(missing_ok=True)
    console.print(
        f"Model {version} is in {folder}, registered as {registered.name} version {registered.version} "
        f"({trainer.step} steps, {summary.seconds / 60:.0f} minutes)."
    )
    return summary


def _sources(settings: TrainSettings, console: Console) -> tuple[list[Source], list[Source]]:
    """Training and validation parts of every input."""
    training, validation = [], []
    annotated: Counter[str] = Counter()
    for each in settings.inputs:
        logs = read_logs([each.pattern], each.format)
        for path in settings.annotations:
            annotated[path] += annotate(logs.dialogues, path)
        if each.feedback_weight:
            take_surveys(logs.dialogues)
        parts: dict[Part, list[Dialogue]] = {part: [] for part in Part}
        for dialogue in logs.dialogues:
            parts[part_of(dialogue)].append(dialogue)
        if not parts[Part.TRAIN]:
            raise UserError(f"--input {each.pattern} has no dialogue to train on ({logs.rejected.total()} rejected).")
        try:
            if each.ontology:
                ontology = Ontology.read(Path(storage.absolute(each.ontology)))
            else:
                ontology = infer(parts[Part.TRAIN], annotations=True)
        except (OSError, OntologyError) as error:
            raise UserError(f"Cannot read --ontology {each.ontology}: {error}.") from None
        name = f"{each.format}:{Path(each.pattern).name}"
        training.append(Source(name, parts[Part.TRAIN], ontology, each.passes, feedback_weight=each.feedback_weight))
        validation.append(Source(name, parts[Part.VALIDATION], ontology, 1.0))
        counts = Counter({part: len(dialogues) for part, dialogues in parts.items()})
        console.print(
            f"{name}: {counts[Part.TRAIN]} dialogues train, {counts[Part.VALIDATION]} validate, "
            f"{counts[Part.TEST]} held out, {logs.rejected.total()} rejected; "
            f"{len(ontology.intents)} intents, {len(ontology.slots)} slots"
        )
    for path in settings.annotations:
        if not annotated[path]:
            raise UserError(f"--annotations {path} names no dialogue of the inputs: check its dialogue_id.")
    if not any(source.dialogues for source in validation):
        raise UserError("No dialogue is left to calibrate on: give more logs.")
    return training, validation


def _feedback(sources: Sequence[Source], console: Console) -> list[Supervision | None]:
    """What feedback says in each source, with a table of it; None where none is asked for.

    Raises `UserError` where there is neither feedback nor annotation.
    """
    feedback = [supervise(source.dialogues) if source.feedback_weight else None for source in sources]
    for source, each in zip(sources, feedback, strict=True):
        if each and each.turns:
            console.print(_functions_table(source.name, each))
    annotated = any(is_annotated(dialogue) for source in sources for dialogue in source.dialogues)
    if not annotated and not any(each and each.turns for each in feedback):
        raise UserError(
            "There is nothing to learn from: no dialogue of the inputs is annotated, and none has feedback "
            "(with --feedback-weight 0 none is looked for)."
        )
    return feedback


def _functions_table(name: str, feedback: Supervision) -> Table:
    title = (
        f"Feedback in {name}: noisy targets for {feedback.turns:,} turns without an annotated failure point; how often "
        "votes are right, as learned from the votes, and in truth where that is annotated"
    )
    table = Table(title=title, title_justify="left")
    for header in ("function", "votes"):
        table.add_column(header, no_wrap=True)
    for header in ("coverage", "overlaps", "conflicts", "learned", "in truth"):
        table.add_column(header, justify="right")
    for each in feedback.report:
        shares = (each.coverage, each.overlaps, each.conflicts, each.learned_accuracy, each.empirical_accuracy)
        table.add_row(each.function, each.vote, *(NOTHING if share is None else f"{share:.3f}" for share in shares))
    return table


def _start(settings: TrainSettings, sources: Sequence[Source]) -> tuple[Model, bool]:
    """The model that is to learn, and whether it has learned no label yet."""
    if not is_model(settings.sizes.init):
        return new_model(settings.sizes, sources, settings.seed), True
    try:
        model = Model.load(resolve_model(settings.sizes.init, settings.tracking_uri)).float()
    except ModelError as error:
        raise UserError(str(error)) from None
    # What faultline pretrain makes has an empty ontology, and was made for logs without scores.
    pretrained_only = not model.ontology.services
    if pretrained_only:
        fit_numbers(model, sources)
    model.ontology = merge([model.ontology, *(source.ontology for source in sources)])
    return model, pretrained_only


def _fingerprint(settings: TrainSettings, sources: Sequence[Source], begun_from: str) -> str:
    """Of all that the weights depend on; not of where things lie or what becomes of the model."""
    sizes = settings.sizes
    same = (begun_from or sizes.init, sizes.layers, sizes.vocabulary, sizes.width, settings.seed)
    return json.dumps([digest(sources), same])


def _write_record(
    path: Path,
    settings: TrainSettings,
    begun_from: str,
    feedback: Sequence[Supervision | None],
    trainer: Trainer,
    summary: TrainSummary,
) -> None:
    """What the model card quotes: recipe, data, feedback and calibration. No paths: a model travels."""
    record = {
        "model_version": summary.model_version,
        "steps": summary.steps,
        "skipped_steps": trainer.skipped,
        "minutes": round(summary.seconds / 60, 1),
        "config": asdict(trainer.config),
        "init": {"model_version": begun_from, "share": settings.init_share}
        if begun_from
        else {
            "encoder": Path(settings.sizes.init).name,
            "layers": settings.sizes.layers,
            "vocabulary": settings.sizes.vocabulary,
        },
        "sources": [
            {
                "name": source.name,
                "dialogues": len(source.dialogues),
                "turns": sum(len(dialogue.turns) for dialogue in source.dialogues),
                "passes": source.passes,
                "feedback": {
                    "weight": source.feedback_weight,
                    "turns": each.turns if each else 0,
                    "functions": each.report if each else [],
                },
            }
            for source, each in zip(trainer.sources, feedback, strict=True)
        ],
        "calibration": summary.calibration,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def _parser() -> OptionParser:
    parser = OptionParser("faultline train", (__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add_inputs(parser)
    add(
        "--ontology",
        action="append",
        default=[],
        metavar="FILE",
        help="intents and slots of an input in SGD's schema form, once for all or once each; '' for the default "
        "(default: the names in its annotations and NLU hypotheses)",
    )
    add(
        "--annotations",
        action="append",
        default=[],
        metavar="FILE",
        help='JSON Lines of failure points by dialogue: {"dialogue_id": …, "failure_points": [one a turn]}',
    )
    add(
        "--feedback-weight",
        action="append",
        default=[],
        type=not_negative,
        metavar="WEIGHT",
        help="how much a turn that only feedback tells of counts beside 1 of an annotated one, a number of at least 0: "
        f"once for all inputs, or once each; 0 learns from no feedback (default: {DEFAULT_FEEDBACK_WEIGHT:g})",
    )
    add_sizes(
        parser,
        "a whole model that goes on learning (builtin, the folder of one, what faultline pretrain has made, or "
        "models:/NAME@ALIAS or models:/NAME/VERSION of MLflow), or only the words encoder of a new model: ",
    )
    add(
        "--init-share",
        type=fraction,
        default=0.0,
        metavar="SHARE",
        help="how much of a whole model that the training starts from is kept, less than 1: the weights are the mean "
        "of its, times SHARE, and of those that were learned (default: %(default)g)",
    )
    add(
        "--precision",
        type=fraction,
        default=0.9,
        help="precision of the labels that do not abstain, on the validation part, more than 0 and less than 1 "
        "(default: 0.9)",
    )
    add("--seed", type=seed, default=1, help="seed of everything random, less than 2^32 (default: 1)")
    add("--threads", type=whole_number, default=None, help="CPU threads (default: all cores)")
    add("--mlflow-tracking-uri", default=None, metavar="URI", help="default: a SQLite file in the output folder")
    add("--experiment", default="faultline", help="MLflow experiment (default: faultline)")
    add("--name", type=model_name, default="faultline", help="name in the model registry (default: faultline)")
    add(
        "--alias",
        type=model_alias,
        default=None,
        help="alias in the registry that moves to the new version: letters, digits, _ and -, but neither latest nor v "
        "and a number, which MLflow keeps for itself (default: none)",
    )
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
