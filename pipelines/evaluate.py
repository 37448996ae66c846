"""`faultline evaluate`: scores a model against annotated logs, with intervals, and baselines beside it.

What is counted, and how, is said in `pipelines.scoring`, the scores in `labelers.metrics`, the baselines in
`pipelines.baselines` and `pipelines.own_turn`. The logs are labelled as `faultline label` labels them; of the parts
that `pipelines.logs` divides them into, the test part is what neither training nor calibration has seen.

The output folder gets `evaluation.json` (an `Evaluation`), pictures of the failure points, and every mistake
(`pipelines.mistakes`); the run goes to MLflow, less the mistakes.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from labelers.failure_point import POINTS
from labelers.metrics import Booleans, Floats, Integers, confusion, curve
from labelers.model import Model, ModelError, groups
from pipelines import baselines, own_turn, storage
from pipelines.errors import UserError, unwritable
from pipelines.evaluation import (
    DEFECT,
    MODEL,
    PEOPLE,
    Evaluation,
    Graded,
    Score,
    coverages,
    reliability_bins,
    scores,
    show,
)
from pipelines.evaluation_plot import confusion_figure, coverage_figure, reliability_figure
from pipelines.labelling import load_model
from pipelines.logs import Part, annotate, dialogue_format, is_annotated, logged_ontology, part_of, read_logs
from pipelines.mistakes import mistakes
from pipelines.options import Device, OptionParser, add_device, whole_number
from pipelines.plan import find_sources
from pipelines.scoring import (
    CORRECT,
    FailurePoints,
    Frame,
    Ratings,
    Scored,
    act_slot_values,
    annotated_success,
    confidences,
    exact_slots,
    goals_of_success,
    labelled_goal,
    score_agreement,
    score_defects,
    score_failure_points,
    score_goal_boundaries,
    score_intents,
    score_items,
    score_people,
    score_rephrases,
    score_success,
    slot_spans,
    success_probability,
)
from pipelines.staging import to_parquet
from pipelines.tracking import BUILTIN, TrackingError, default_tracking_uri, log_evaluation_run
from schemas.formats import formats, get_format
from schemas.formats.dstc2 import Dstc2Format
from schemas.labels import DialogueLabels, Label
from schemas.log import Dialogue, FailurePoint, TurnAnnotation
from schemas.ontology import Ontology, OntologyError

ALL = "all"
"""Every part."""
EVALUATION = "evaluation.json"
MISTAKES = "mistakes.parquet"
CONFUSION, RELIABILITY, COVERAGE = "confusion.png", "reliability.png", "coverage.png"
OWN_TURN = "own_turn"
"""The baseline of `pipelines.own_turn`."""
_PROGRESS_TURNS = 4_096
_PIPED_WIDTH = 160


@dataclass(frozen=True)
class EvaluateSettings:
    """All of a run's options."""

    inputs: tuple[str, ...]
    input_format: str
    annotations: tuple[str, ...]
    part: str
    model: str
    ontology: str | None
    failure_points: tuple[str, ...]
    """classes of the macro-F1; empty: those that are annotated"""
    baselines: bool
    own_turn: str | None
    """what the baseline that reads single turns starts from; None: there is no such baseline"""
    device: Device
    """of the model; baselines compute on the CPU"""
    resamples: int
    output: str
    tracking_uri: str
    experiment: str
    threads: int | None


def run(argv: Sequence[str] | None = None) -> Evaluation:
    """Evaluates by command line and prints the scores. Raises `UserError`."""
    evaluation = evaluate(parse(sys.argv[1:] if argv is None else argv))
    show(evaluation, Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH))
    return evaluation


def parse(argv: Sequence[str]) -> EvaluateSettings:
    """The settings that the command line asks for. Raises `UserError`."""
    options = _parser().parse_args(argv)
    points = (
        tuple(each.strip() for each in options.failure_points.split(",")) if options.failure_points is not None else ()
    )
    for point in points:
        if point not in tuple(FailurePoint):
            raise UserError(f"--failure-points has {point!r}: choose from {', '.join(FailurePoint)}, joined by commas.")
    for name, given in (("--baselines are", options.baselines), ("--own-turn is", options.own_turn)):
        if given and options.part in (ALL, Part.TRAIN):
            raise UserError(
                f"{name} trained on the train part, and --part {options.part} has dialogues of it: "
                f"choose --part {Part.TEST} or {Part.VALIDATION}."
            )
    dialogue_format(options.input_format)
    output = storage.absolute(options.output)
    if "://" in output:
        raise UserError(f"--output {options.output} must be a local folder: name one, and copy it afterwards.")
    return EvaluateSettings(
        inputs=tuple(options.input),
        input_format=options.input_format,
        annotations=tuple(options.annotations),
        part=options.part,
        model=options.model,
        ontology=options.ontology,
        failure_points=tuple(point for point in FailurePoint if point in points),
        baselines=options.baselines,
        own_turn=options.own_turn,
        device=Device(options.device),
        resamples=options.resamples,
        output=output,
        tracking_uri=options.mlflow_tracking_uri or default_tracking_uri(output),
        experiment=options.experiment,
        threads=options.threads,
    )


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Labels, scores, writes the output folder, and logs the run. Raises `UserError`."""
    console = Console(stderr=True, markup=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        folder = storage.writable_folder(settings.output)
    except OSError as error:
        raise unwritable(f"--output {settings.output}", error) from error
    ontology = _ontology(settings)
    try:
        model = load_model(settings.model, settings.tracking_uri, settings.device)
    except ModelError as error:
        raise UserError(str(error)) from None
    everything, rejected = _read(settings)
    dialogues = [each for each in everything if settings.part in (ALL, part_of(each))]
    _check_annotated(settings, dialogues)
    training = [each for each in everything if part_of(each) == Part.TRAIN]
    # Before the logs are labelled, which takes longer than it takes to see that it cannot be trained.
    alone = own_turn.fit(settings.own_turn, training, console) if settings.own_turn is not None else None
    labels = _label(model, dialogues, ontology, console)
    graded = _graded(dialogues, labels)
    evaluation = Evaluation(
        inputs=settings.inputs,
        input_format=settings.input_format,
        part=settings.part,
        model_uri=settings.model,
        model_version=model.version,
        dialogues=len(dialogues),
        turns=sum(len(dialogue.turns) for dialogue in dialogues),
        rejected=rejected,
        failure_points=[str(point) for point in _counted(settings, dialogues)],
        resamples=settings.resamples,
        scores=[
            *_model_scores(settings, dialogues, labels),
            *_agreement_scores(dialogues, labels, settings.resamples),
            *_scores_by_familiarity(model.ontology, dialogues, labels, settings.resamples),
            *(_baseline_scores(settings, training, dialogues) if settings.baselines else ()),
            *(_own_turn_scores(settings, alone, dialogues) if alone is not None else ()),
        ],
        confusion=_confusion(dialogues, labels).tolist(),
        coverage=[each for label, answers in graded.items() for each in coverages(label, answers)],
        reliability=[each for label, answers in graded.items() for each in reliability_bins(label, answers)],
    )
    try:
        files = _write(folder, evaluation, graded, to_parquet(mistakes(dialogues, labels)))
    except OSError as error:
        raise unwritable(f"--output {settings.output}", error) from error
    _log(settings, evaluation, files, console)
    return evaluation


# Reading and labelling


def _read(settings: EvaluateSettings) -> tuple[list[Dialogue], dict[str, int]]:
    logs = read_logs(settings.inputs, settings.input_format)
    for path in settings.annotations:
        if not annotate(logs.dialogues, path):
            raise UserError(f"--annotations {path} names no dialogue of the input: give the file that belongs to it.")
    return logs.dialogues, {str(reason): count for reason, count in sorted(logs.rejected.items())}


def _check_annotated(settings: EvaluateSettings, dialogues: Sequence[Dialogue]) -> None:
    if not dialogues:
        raise UserError(f"The input has no dialogue in --part {settings.part}: choose another part, or give more logs.")
    rated = Ratings.of_turns(dialogues).dialogues or Ratings.of_dialogues(dialogues).dialogues
    if not rated and not any(is_annotated(dialogue) for dialogue in dialogues):
        raise UserError(
            "Nothing in these logs is annotated: give annotated logs, or failure points with --annotations."
        )


def _ontology(settings: EvaluateSettings) -> Ontology | None:
    """As for `faultline label`: the user's, else the logs' own, else (None) the model's."""
    if settings.ontology is None:
        return logged_ontology(find_sources(settings.inputs), get_format(settings.input_format))
    try:
        return Ontology.read(Path(storage.absolute(settings.ontology)))
    except OSError as error:
        raise UserError(f"Cannot read --ontology {settings.ontology}: {error.strerror or error}.") from None
    except OntologyError as error:
        raise UserError(f"{error}.") from None


def _label(
    model: Model, dialogues: Sequence[Dialogue], ontology: Ontology | None, console: Console
) -> list[DialogueLabels]:
    labels: list[DialogueLabels] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Labelling", total=len(dialogues))
        for group in groups(dialogues, _PROGRESS_TURNS):
            labels += model.label(group, ontology)
            bar.update(task, completed=len(labels))
    return labels


# Scoring


def _counted(settings: EvaluateSettings, dialogues: Sequence[Dialogue]) -> list[FailurePoint]:
    """The classes of the macro-F1."""
    annotated = FailurePoints.of(dialogues).truth
    return [
        point
        for number, point in enumerate(POINTS)
        if (point in settings.failure_points if settings.failure_points else number in annotated)
    ]


def _model_scores(
    settings: EvaluateSettings, dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]
) -> Iterator[Score]:
    resamples = settings.resamples
    asked = FailurePoints.of(dialogues)
    if asked.dialogues:
        probabilities = asked.probabilities(labels)
        abstained = np.array(asked.pick(_abstained(labels, Label.FAILURE_POINT)))
        counted = _counted(settings, dialogues)
        scored = score_failure_points(asked, asked.decided(labels), probabilities, counted, resamples, abstained)
        yield from scores("failure_point", MODEL, scored)
    yield from scores("success", MODEL, _score_dialogue_success(dialogues, labels, resamples))
    yield from scores("goal_success", MODEL, _score_goal_success(dialogues, labels, resamples))
    for label, scored_goals in score_goal_boundaries(dialogues, labels, resamples).items():
        yield from scores(label, MODEL, scored_goals)
    frames = [[Frame(turn.intent, turn.slots) for turn in labelled.turns] for labelled in labels]
    abstained_intents = _abstained(labels, Label.INTENT)
    yield from scores("intent", MODEL, score_intents(dialogues, frames, resamples, abstained_intents))
    yield from _slot_scores(settings, MODEL, dialogues, frames, _abstained(labels, Label.SLOTS))
    yield from scores("rephrase", MODEL, score_rephrases(dialogues, labels, resamples))
    if asked.dialogues:
        yield from _sliced_defects(asked, asked.decided(labels) != CORRECT, probabilities, dialogues, resamples)


def _agreement_scores(
    dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels], resamples: int
) -> Iterator[Score]:
    """Of the model with people, beside that of people with each other."""
    turns = [[1 - turn.defect_probability for turn in labelled.turns] for labelled in labels]
    whole = [[success_probability(labelled)] for labelled in labels]
    for label, rated, values in (
        ("agreement", Ratings.of_turns(dialogues), turns),
        ("dialogue_agreement", Ratings.of_dialogues(dialogues), whole),
    ):
        yield from scores(label, MODEL, score_agreement(rated, values, resamples))
        yield from scores(label, PEOPLE, score_people(rated, resamples))


def _slot_scores(
    settings: EvaluateSettings,
    predictor: str,
    dialogues: Sequence[Dialogue],
    frames: Sequence[Sequence[Frame]],
    abstained: Sequence[Sequence[bool]] | None = None,
) -> Iterator[Score]:
    kinds = {"slots": exact_slots, "slot_spans": slot_spans}
    if settings.input_format == Dstc2Format.name:
        kinds["act_slot_value"] = act_slot_values
    for label, items in kinds.items():
        # What is abstained from are slots, so of their acts or places alone nothing is told.
        unsure = abstained if label == Label.SLOTS else None
        yield from scores(label, predictor, score_items(dialogues, frames, items, settings.resamples, unsure))


def _scores_by_familiarity(
    learned: Ontology, dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels], resamples: int
) -> Iterator[Score]:
    """Intents and slots of services that the model was trained on, and of those that it was not, if there are both."""
    services = {service.service_name for service in learned.services}
    annotated = (turn.annotation for dialogue in dialogues for turn in dialogue.turns)
    domains = {each.domain for each in annotated if each is not None and each.domain is not None}
    frames = [[Frame(turn.intent, turn.slots) for turn in labelled.turns] for labelled in labels]
    parts = {"seen in training": domains & services, "not seen in training": domains - services}
    for name, part in parts.items() if all(parts.values()) else ():

        def counts(annotation: TurnAnnotation, part: set[str] = part) -> bool:
            return annotation.domain in part

        intents = score_intents(dialogues, frames, resamples, counts=counts)
        slots = score_items(dialogues, frames, slot_spans, resamples, counts=counts)
        yield from scores("intent", MODEL, intents, "service", name)
        yield from scores("slot_spans", MODEL, slots, "service", name)


def _sliced_defects(
    asked: FailurePoints, found: Booleans, probabilities: Floats, dialogues: Sequence[Dialogue], resamples: int
) -> Iterator[Score]:
    """Of each device, locale and domain, where there are several."""
    turns = [dialogue.turns for dialogue in dialogues]
    sliced = {
        "device": [dialogues[number].device for number in asked.dialogues],
        "locale": [dialogues[number].locale for number in asked.dialogues],
        "domain": [turn.nlu[0].domain if turn.nlu else None for turn in asked.pick(turns)],
    }
    for by, values in sliced.items():
        known = sorted({value for value in values if value is not None})
        for value in known if len(known) > 1 else []:
            rows = np.array([each == value for each in values])
            scored = score_defects(
                np.array(asked.dialogues)[rows].tolist(),
                asked.defects[rows],
                found[rows],
                1 - probabilities[rows, CORRECT],
                resamples,
            )
            yield from scores("failure_point", MODEL, scored, by, value)


def _baseline_scores(
    settings: EvaluateSettings, training: Sequence[Dialogue], dialogues: Sequence[Dialogue]
) -> Iterator[Score]:
    """Of the baselines that take seconds; none without a training part."""
    resamples = settings.resamples
    counted = _counted(settings, dialogues)
    learned, asked = FailurePoints.of(training), FailurePoints.of(dialogues)
    if learned.dialogues and asked.dialogues:
        known, features = baselines.features(training, learned), baselines.features(dialogues, asked)
        threshold = baselines.AsrThreshold.fit(known, learned.defects)
        if threshold is not None:
            found, doubt = threshold.find(features), threshold.doubt(features)
            scored = score_defects(asked.dialogues, asked.defects, found, doubt, resamples)
            yield from scores("failure_point", "asr_threshold", scored)
        boosting = baselines.GradientBoosting.fit(known, learned.truth)
        if boosting is not None:
            probabilities = boosting.probabilities(features)
            scored = score_failure_points(asked, boosting.decide(probabilities), probabilities, counted, resamples)
            yield from scores("failure_point", "gradient_boosting", scored)
        most = np.full(len(asked.truth), np.bincount(learned.truth).argmax())
        scored = score_failure_points(asked, most, np.eye(len(POINTS))[most], counted, resamples)
        yield from scores("failure_point", "majority", scored)
    _, successes = annotated_success(training)
    if len(successes):
        numbers, truth = annotated_success(dialogues)
        constant = np.full(len(truth), successes.mean())
        yield from scores("success", "majority", score_success(numbers, truth, constant, resamples))
    most_common = baselines.majority_intent(training)
    if most_common is not None:
        frames = [[Frame(most_common, [])] * len(dialogue.turns) for dialogue in dialogues]
        yield from scores("intent", "majority", score_intents(dialogues, frames, resamples))
    live = baselines.live_frames(dialogues)
    if live is not None:
        yield from scores("intent", "live_assistant", score_intents(dialogues, live, resamples))
        yield from _slot_scores(settings, "live_assistant", dialogues, live)


def _own_turn_scores(settings: EvaluateSettings, alone: Model, dialogues: Sequence[Dialogue]) -> Iterator[Score]:
    """Of the baseline that reads single turns."""
    labels = own_turn.label(alone, dialogues)
    asked = FailurePoints.of(dialogues)
    if asked.dialogues:
        counted = _counted(settings, dialogues)
        scored = score_failure_points(
            asked, asked.decided(labels), asked.probabilities(labels), counted, settings.resamples
        )
        yield from scores("failure_point", OWN_TURN, scored)
    frames = [[Frame(turn.intent, turn.slots) for turn in labelled.turns] for labelled in labels]
    yield from scores("intent", OWN_TURN, score_intents(dialogues, frames, settings.resamples))
    yield from _slot_scores(settings, OWN_TURN, dialogues, frames)


def _score_dialogue_success(
    dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels], resamples: int
) -> Scored | None:
    numbers, truth = annotated_success(dialogues)
    probability = np.array([success_probability(labels[number]) for number in numbers])
    return score_success(numbers, truth, probability, resamples)


def _score_goal_success(
    dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels], resamples: int
) -> Scored | None:
    goals = goals_of_success(dialogues)
    probability = np.array([success_probability(labelled_goal(labels[goal.dialogue], goal.turns)) for goal in goals])
    truth = np.array([goal.success for goal in goals], dtype=np.bool_)
    return score_success([goal.dialogue for goal in goals], truth, probability, resamples)


def _abstained(labels: Sequence[DialogueLabels], label: Label) -> list[list[bool]]:
    return [[label in turn.abstained for turn in labelled.turns] for labelled in labels]


def _graded(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> dict[str, Graded]:
    """How sure the model was, and whether rightly, by label."""
    graded = {}
    asked = FailurePoints.of(dialogues)
    if asked.dialogues:
        probabilities = asked.probabilities(labels)
        decided = asked.decided(labels)
        graded["failure_point"] = Graded(confidences(decided, probabilities), decided == asked.truth)
        graded[DEFECT] = Graded(1 - probabilities[:, CORRECT], asked.defects)
    numbers, truth = annotated_success(dialogues)
    if numbers:
        of_success = [labels[number] for number in numbers]
        confidence = np.array([each.success_confidence for each in of_success])
        graded["success"] = Graded(confidence, np.array([each.success for each in of_success]) == truth)
    return graded


def _confusion(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Integers:
    asked = FailurePoints.of(dialogues)
    return confusion(asked.truth, asked.decided(labels), len(POINTS))


# Output


def _write(folder: Path, evaluation: Evaluation, graded: Mapping[str, Graded], mistaken: bytes) -> list[Path]:
    """Writes the mistakes, the pictures and the record; gives the paths of the record and the pictures."""
    figures = {}
    if np.any(evaluation.confusion):
        figures[CONFUSION] = confusion_figure(np.array(evaluation.confusion), [str(point) for point in POINTS])
    if graded:
        figures[RELIABILITY] = reliability_figure(evaluation.reliability)
        figures[COVERAGE] = coverage_figure({label: curve(*answers) for label, answers in graded.items()})
    content = {name: _png(figure) for name, figure in figures.items()}
    record = msgspec.json.format(msgspec.json.encode(evaluation), indent=1) + b"\n"
    for name, data in {MISTAKES: mistaken, **content, EVALUATION: record}.items():
        storage.write_bytes(str(folder / name), data, temporary=str(folder))
    for name in {CONFUSION, RELIABILITY, COVERAGE} - content.keys():
        (folder / name).unlink(missing_ok=True)  # of another evaluation
    return [folder / EVALUATION, *(folder / name for name in content)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _log(settings: EvaluateSettings, evaluation: Evaluation, files: Sequence[Path], console: Console) -> None:
    metrics = {
        f"{each.label}/{each.metric}" if each.predictor == MODEL else f"{each.predictor}/{each.label}/{each.metric}": (
            each.value
        )
        for each in evaluation.scores
        if each.value is not None and each.slice_by is None
    }
    try:
        log_evaluation_run(
            tracking_uri=settings.tracking_uri,
            experiment=settings.experiment,
            run_name=f"evaluate {evaluation.model_version}",
            model_uri=evaluation.model_uri,
            model_version=evaluation.model_version,
            parameters={**asdict(settings), "dialogues": evaluation.dialogues, "turns": evaluation.turns},
            metrics=metrics,
            files=files,
        )
    except TrackingError as error:
        # The scores are worth more than the log of their making.
        console.print(f"The run is not in MLflow: {error}", style="yellow", highlight=False)


def _parser() -> OptionParser:
    parser = OptionParser("faultline evaluate", (__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        metavar="GLOB",
        help="annotated logs of one assistant: a path or glob, plain or gzip; can be given several times",
    )
    add(
        "--input-format",
        default="jsonl",
        metavar="NAME",
        help=f"one of {', '.join(formats())} (default: %(default)s)",
    )
    add(
        "--annotations",
        action="append",
        default=[],
        metavar="FILE",
        help='JSON Lines of failure points by dialogue: {"dialogue_id": …, "failure_points": [one a turn]}',
    )
    add(
        "--part",
        choices=[Part.TEST, Part.VALIDATION, Part.TRAIN, ALL],
        default=Part.TEST,
        help="the part of the logs that is scored: test is what faultline train never sees; all is for logs that the "
        "model was not trained on (default: %(default)s)",
    )
    add(
        "--model",
        default=BUILTIN,
        metavar="MODEL",
        help="a model folder, models:/NAME@ALIAS of MLflow, or builtin (default: %(default)s)",
    )
    add(
        "--ontology",
        metavar="FILE",
        help="JSON in the form of SGD's schema.json: the intents and slots of the assistant "
        "(default: those in the logs' own NLU hypotheses; where there are none, those that the model was trained on)",
    )
    add(
        "--failure-points",
        metavar="NAMES",
        help="classes that macro-F1 is the mean over, joined by commas: correct,asr,nlu (default: those annotated)",
    )
    add(
        "--baselines",
        action="store_true",
        help="score the baselines, too, trained on the input's own train part: a threshold on the ASR score, gradient "
        "boosting, the assistant's own NLU, the most frequent answer",
    )
    add(
        "--own-turn",
        metavar="INIT",
        help="score a RoBERTa that reads each turn alone, too, trained on the input's own train part, which takes "
        "minutes: minilm, a folder with a RoBERTa checkpoint, or the name of one on the hub, as for faultline train",
    )
    add(
        "--resamples",
        type=whole_number,
        default=1000,
        metavar="N",
        help="bootstrap resamples of the dialogues for the 95 %% intervals (default: %(default)s)",
    )
    add("--output", required=True, metavar="DIR", help=f"folder for {EVALUATION}, {MISTAKES} and the pictures")
    add_device(parser)
    add("--threads", type=whole_number, default=None, metavar="N", help="CPU threads (default: all cores)")
    add("--mlflow-tracking-uri", metavar="URI", help="default: a SQLite file in the output folder")
    add("--experiment", default="faultline-evaluate", metavar="NAME", help="MLflow experiment (default: %(default)s)")
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
