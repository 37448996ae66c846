"""`faultline label`: reads dialogue logs and writes the labels of every turn and goal in them.

The launcher: it checks the options, starts the graph (`pipelines.graph`), resolves duplicate ids, validates what
was written, publishes it whole, and logs the run. The contract of the output is in `schemas.labels`.

A run that fails publishes nothing. What it finished stays in OUTPUT/_staging, and the same command goes on there.
On a disk a second run on the same input and output is refused while the first one works.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import apache_beam as beam
import grpc
import msgspec
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import PipelineState
from rich.console import Console
from rich.table import Table

from pipelines import publish, storage, track
from pipelines.credentials import HIDDEN, is_secret, without_secrets
from pipelines.duplicates import exclude_repeated
from pipelines.errors import RunFailed, UserError, unwritable
from pipelines.logs import logged_ontology
from pipelines.options import Device, is_local, use_the_machine
from pipelines.plan import Plan, find_sources, make_plan, tracking_uri
from pipelines.progress import RunProgress
from pipelines.publish import VALIDATION_JSON, Manifest, ModelFacts
from pipelines.results import ChunkResult, RunSummary, add, parts_by_table, shares
from pipelines.settings import LabelSettings, parse
from pipelines.staging import LOGS, READERS, read_all
from pipelines.tracking import LabelRun, TrackingError, log_label_run
from pipelines.validation import Findings, ValidationReport, conclude, validate_parts
from schemas.formats import EventFormat, get_format
from schemas.labels import TABLES
from schemas.log import FailurePoint

SHARE_ROWS = 500_000
"""Turns and rejects of which one worker validates what was written, about: some ten seconds' work."""
SHARES_ALONE = 10
"""Shares that the launcher validates itself: until the workers of a cloud have started again it would be done."""

_STEP = re.compile(r" \[while running '[^']*'\]")


def run(argv: Sequence[str] | None = None) -> RunSummary | None:
    """Runs the job; `argv` are its options (default: those of the process). A dry run gives None, and so does a
    template, which only says what is to be done.

    Raises `UserError` where the options are wrong, `RunFailed` where the run could not be finished.
    """
    settings, beam_options = parse(sys.argv[1:] if argv is None else argv)
    FileSystems.set_options(beam_options)  # the files are looked for before there is a pipeline
    plan = _plan(settings, settings.device if is_local(beam_options) else Device.CPU)
    # In another thread it would not be noticed that a process has died.
    if settings.limit is None and threading.current_thread() is threading.main_thread():
        use_the_machine(beam_options, plan.source_bytes)
    out = Console(markup=False)
    if settings.dry_run:
        _print_plan(plan, beam_options, out)
        return None
    console = Console(stderr=True, markup=False)
    try:
        with _alone(plan):
            summary = _published(plan, console)
            template = beam_options.view_as(GoogleCloudOptions).template_location
            if summary is None and template is not None:
                _run_labelling(plan, beam_options)
                out.print(
                    f"{template} describes the job. When a job of it is done, the same command without "
                    "--template_location publishes what it has labelled.",
                    highlight=False,
                    soft_wrap=True,
                )
                return None
            if summary is None:
                summary = _execute(plan, beam_options, console)
            else:
                out.print("This input is already labelled by this model with these options: nothing was changed.")
                storage.delete_folder(publish.dataset_folder(plan.settings.output, plan.dataset))
    except OSError as error:
        raise RunFailed(f"The run failed: {_sentence(error)} {_resume(plan)}") from error
    _print_summary(summary, out)
    return summary


@contextmanager
def _alone(plan: Plan) -> Iterator[None]:
    """Keeps other runs on this input away. Raises `JobError` where one is at work, or where nothing can be written."""
    output = plan.settings.output
    with ExitStack() as stack:
        try:
            stack.enter_context(publish.only_run(output, plan.dataset))
        except BlockingIOError:
            raise UserError(
                f"Another run is labelling this input into {output}: wait until it has ended, or give another --output."
            ) from None
        except OSError as error:
            raise unwritable(f"--output {output}", error) from error
        except ValueError as error:
            raise UserError(f"Cannot write to --output {output} ({error}): choose another.") from None
        yield


def _published(plan: Plan, console: Console) -> RunSummary | None:
    """The summary of this very run, if it is published.

    Raises `UserError` where its rows would be doubled, or be replaced by fewer of the same input.
    """
    output = plan.settings.output
    summary = None
    with publish.only_publisher(output):
        for sentence in publish.complete_interrupted(output):
            _say(sentence, console)
        if unsent := track.kept(output):
            _say(f"MLflow lacks {len(unsent):,} of the runs in {output}; send with: faultline track {output}", console)
        for manifest in publish.published(output):
            _check_overlap(plan, manifest)
            _check_limit(plan, manifest)
            if manifest.run_id == plan.work.provenance.run_id and publish.is_whole(output, manifest):
                summary = manifest.summary
    return summary


def _plan(settings: LabelSettings, device: Device) -> Plan:
    """What is to be done. `device` is that of this process, which may not be one of those that label."""
    sources = find_sources(settings.inputs)
    registry = tracking_uri(settings)
    # Imported here: PyTorch takes seconds, which a mistyped option should not.
    from labelers.model import ModelError
    from pipelines.labelling import load_model

    try:
        model = load_model(settings.model, registry, device)
    except ModelError as error:
        raise UserError(str(error)) from error
    ontology = settings.ontology or logged_ontology(sources, get_format(settings.input_format))
    return make_plan(settings, sources, registry, model.version, ontology)


def _check_overlap(plan: Plan, manifest: Manifest) -> None:
    if manifest.dataset == plan.dataset:
        return
    ours = {source.path for source in plan.sources}
    shared = next((source.path for source in manifest.sources if source.path in ours), None)
    if shared is not None:
        patterns = " ".join(f"--input {pattern}" for pattern in manifest.inputs)
        raise UserError(
            f"{shared} is already labelled in {plan.settings.output}, by {patterns} --input-format "
            f"{manifest.summary.input_format}, so its rows would be there twice: give the same --input and "
            "--input-format as then, or another --output."
        )


def _check_limit(plan: Plan, manifest: Manifest) -> None:
    limit, before = plan.settings.limit, manifest.settings["limit"]
    if manifest.dataset == plan.dataset and limit is not None and (before is None or before > limit):
        held = "all records" if before is None else f"the first {before:,} records"
        raise UserError(
            f"{plan.settings.output} holds the labels of {held} of this input, of which --limit {limit} would leave "
            f"only {limit:,}: give another --output."
        )


def _execute(plan: Plan, beam_options: PipelineOptions, console: Console) -> RunSummary:
    started = time.monotonic()
    output, staging = plan.settings.output, plan.work.staging
    engine = beam_options.view_as(DirectOptions)
    if engine.direct_running_mode == "multi_processing":
        threads = os.environ["OMP_NUM_THREADS"]
        _say(f"Worker processes: {engine.direct_num_workers}; threads of each: {threads}.", console)
    damaged = staging.discard_damaged()
    if damaged:
        _say(f"{len(damaged):,} units of work of an interrupted run are damaged and are done again.", console)
    with RunProgress(staging, plan.source_bytes, console, shown=plan.settings.progress) as progress:
        if progress.before.records:
            _say(
                f"An earlier try of this run was interrupted: going on after the {progress.before.turns:,} turns that "
                "it has labelled.",
                console,
            )
        results = _run_graph(plan, beam_options)
        ids = sum(result.counts.dialogues for result in results)
        while exclude_repeated(staging, [result.chunk for result in results], ids):
            results = _run_graph(plan, beam_options)
    _check_sources(plan, console)
    counts = add(result.counts for result in results)
    summary = RunSummary(
        **msgspec.structs.asdict(counts),
        run_id=plan.work.provenance.run_id,
        dataset=plan.dataset,
        output=output,
        input_format=plan.settings.input_format,
        model_uri=plan.work.provenance.model_uri,
        model_version=plan.work.provenance.model_version,
        chunks=len(results),
        wall_seconds=time.monotonic() - started,
        turns_per_second=progress.turns_per_second,
    )
    parts = parts_by_table(results)
    manifest = Manifest(
        run_id=summary.run_id,
        dataset=plan.dataset,
        inputs=plan.settings.inputs,
        sources=plan.sources,
        settings=_shown_settings(plan),
        summary=summary,
        parts=tuple(part for table in TABLES for part in parts.get(table, [])),
        model=_model_facts(plan),
    )
    if plan.work.by_date:
        publish.prepare(output, manifest)
    report = _validated(plan, results, beam_options, console)
    failure = _failure(plan, summary, report)
    manifest = publish.with_every_table(staging, manifest, by_date=plan.work.by_date)
    ended = _ended(plan, report, manifest, failure)
    if failure is None:
        with publish.only_publisher(output):
            # Again: another run may have published since this one began.
            for other in publish.published(output):
                _check_overlap(plan, other)
            documents = dict([(VALIDATION_JSON, report.to_json()), track.note(ended), *_card(plan, manifest, console)])
            publish.publish(output, staging, manifest, documents)
    else:
        staging.write_bytes(storage.join(staging.folder, VALIDATION_JSON), report.to_json().encode())
    _send(ended, plan, console)
    if failure is not None:
        raise RunFailed(f"{failure} Nothing was published; what was written is in {staging.folder}.")
    return summary


def _model_facts(plan: Plan) -> ModelFacts:
    from pipelines.dataset_card import model_facts
    from pipelines.labelling import load_model, model_folder

    model = (plan.work.provenance.model_uri, plan.work.tracking_uri)
    return model_facts(load_model(*model), model_folder(*model))


def _card(plan: Plan, manifest: Manifest, console: Console) -> list[tuple[str, str]]:
    """The dataset card with its path, unless somebody else's file is there."""
    from pipelines.dataset_card import CARD, card, is_free

    output = plan.settings.output
    if not is_free(output):
        path = storage.join(output, CARD)
        _say(f"{path} is not by faultline label and was left alone: there is no dataset card.", console)
        return []
    others = [each for each in publish.published(output) if each.dataset != manifest.dataset]
    return [(CARD, card([*others, manifest]))]


def _validated(
    plan: Plan, results: Sequence[ChunkResult], beam_options: PipelineOptions, console: Console
) -> ValidationReport:
    """What the suites say of all that was written. Where that is much, each worker looks at some of it."""
    from pipelines import graph

    staging = plan.work.staging

    def paths(some: Sequence[ChunkResult]) -> dict[str, list[str]]:
        parts = parts_by_table(some)
        return {table: [staging.part(part) for part in parts.get(table, [])] for table in (LOGS, *TABLES)}

    shared = list(shares(results, SHARE_ROWS))
    if len(shared) <= SHARES_ALONE:
        return validate_parts(paths(results))
    _say(f"The workers validate what they have labelled, in {len(shared):,} shares.", console)
    # What an earlier try has found may have been in other shares.
    storage.delete_folder(staging.findings)
    with ThreadPoolExecutor(READERS) as pool:
        files = [staging.share(number) for number in range(len(shared))]
        list(pool.map(staging.write_json, files, map(paths, shared)))
    _run(plan, beam_options, lambda pipeline: graph.build_validation(pipeline, staging, len(shared)))
    found = len(storage.list_files(staging.findings))
    if found != len(shared):
        raise RunFailed(f"The runner lost work: {found:,} of {len(shared):,} shares arrived. {_resume(plan)}")
    return conclude(read_all([staging.found(number) for number in range(found)], Findings))


def _run_graph(plan: Plan, beam_options: PipelineOptions) -> list[ChunkResult]:
    """Runs the graph, unless all of it is done; gives the results of all chunks, in the order of the input."""
    staging = plan.work.staging
    # What an earlier try has done, or a job of a template, for which nobody waits.
    if _lost(plan, len(staging.finished())) is not None:
        _run_labelling(plan, beam_options)
    results = sorted(staging.results(sorted(staging.finished())), key=lambda each: (each.order, each.chunk))
    lost = _lost(plan, len(results))
    if lost is not None:
        raise RunFailed(f"The runner lost work: {lost}. {_resume(plan)}")
    return results


def _run_labelling(plan: Plan, beam_options: PipelineOptions) -> None:
    # Imported here: PyTorch takes seconds, which a mistyped option should not.
    from pipelines import graph

    _run(plan, beam_options, lambda pipeline: graph.build(pipeline, plan))


def _run(plan: Plan, beam_options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Hands a graph to the runner, and waits for its end."""
    try:
        pipeline = beam.Pipeline(options=beam_options)
        build(pipeline)
        with _dead_workers_end_it():
            state = pipeline.run().wait_until_finish()
    # Whatever a runner raises, it has raised because the run failed.
    except Exception as error:
        logging.getLogger(__name__).debug("the run failed", exc_info=True)
        raise RunFailed(f"The run failed: {_sentence(error)} {_resume(plan)}") from error
    if state != PipelineState.DONE:
        raise RunFailed(f"The run ended as {state}, not as {PipelineState.DONE}. {_resume(plan)}")


@contextmanager
def _dead_workers_end_it() -> Iterator[None]:
    """Raises `RuntimeError` where a worker process dies: Beam notices in a thread of its own, and waits on for ever.

    So it does where the job is not run by the main thread, as no other one can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    died: list[BaseException] = []
    main, ended = threading.get_ident(), threading.Event()
    usual = threading.excepthook

    def notice(event: threading.ExceptHookArgs) -> None:
        if str(event.exc_value).startswith("Worker subprocess exited") and event.exc_value is not None:
            died.append(event.exc_value)
            # A true signal, which also ends the wait for a lock, and again, as Beam then waits for its other threads.
            while not ended.is_set():
                signal.pthread_kill(main, signal.SIGUSR1)
                ended.wait(1)
        elif isinstance(event.exc_value, grpc.RpcError):
            # A thread that read from a worker: what became of that is told above.
            logging.getLogger(__name__).debug("a worker's stream broke off", exc_info=event.exc_value)
        else:
            usual(event)

    # Not SIGINT: it is ignored in what a shell or cron has started in the background.
    former = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    threading.excepthook = notice
    try:
        yield
    except KeyboardInterrupt:
        ended.set()
        if not died:
            raise
        raise RuntimeError(f"a worker process died ({died[0]})") from None
    finally:
        ended.set()
        threading.excepthook = usual
        signal.signal(signal.SIGUSR1, former)


def _lost(plan: Plan, results: int) -> str | None:
    """What did not arrive at the next step, as some runners lose elements without an error; None if all did."""
    tallied = plan.work.staging.tallied
    handed_on = [("files", len(plan.sources), tallied("cut", "files"))]
    last = "cut"
    if isinstance(get_format(plan.settings.input_format), EventFormat):
        last = "sessionise"
        handed_on += [
            ("chunks of events", tallied("cut", "chunks"), tallied("partition", "chunks")),
            ("events", tallied("partition", "entries"), tallied("sessionise", "entries")),
        ]
    handed_on.append(("chunks", tallied(last, "chunks"), results))
    for what, sent, arrived in handed_on:
        if sent != arrived:
            return f"{arrived:,} of {sent:,} {what} arrived"
    return None


def _check_sources(plan: Plan, console: Console) -> None:
    """Raises `RunFailed` where an input file is no longer the one that was labelled; says so where it has grown."""
    with ThreadPoolExecutor(READERS) as pool:
        matches = list(pool.map(storage.match, [source.path for source in plan.sources]))
    for source, found in zip(plan.sources, matches, strict=True):
        if not found:
            raise RunFailed(f"{source.path} has disappeared while it was labelled. Nothing was published: start again.")
        size, modified = found[0].size_in_bytes, found[0].last_updated_in_seconds
        if size > source.size:
            _say(
                f"{source.path} has grown while it was labelled: what has been added may not be in the tables. The "
                "next run labels the file anew.",
                console,
            )
        elif (size, modified) != (source.size, source.modified):
            raise RunFailed(f"{source.path} was changed while it was labelled. Nothing was published: start again.")


def _failure(plan: Plan, summary: RunSummary, report: ValidationReport) -> str | None:
    """Why the run must not be published, as a sentence."""
    rate = min(summary.rejected_rows / max(summary.records, 1), 1.0)
    if rate > plan.settings.max_reject_rate:
        reason = max(summary.rejected, key=lambda each: summary.rejected[each])
        return (
            f"{summary.rejected_rows:,} of {summary.records:,} records were rejected ({rate:.1%}; most often "
            f"{reason}), more than --max-reject-rate {plan.settings.max_reject_rate:g}: see the table rejected, check "
            "--input-format, or raise the rate."
        )
    return None if report.success else report.describe_failure()


def _ended(plan: Plan, report: ValidationReport, manifest: Manifest, failure: str | None) -> LabelRun:
    return LabelRun.of(
        tracking_uri=plan.work.tracking_uri,
        experiment=plan.settings.experiment,
        summary=manifest.summary,
        validation=report,
        parameters={
            **manifest.settings,
            "input_files": len(plan.sources),
            "input_bytes": plan.source_bytes,
            "input_digest": plan.dataset,
        },
        run_json=publish.manifest_text(manifest),
        failure=failure,
    )


def _send(ended: LabelRun, plan: Plan, console: Console) -> None:
    try:
        log_label_run(ended, plan.work.tracking_uri)
        track.forget(plan.settings.output, ended)
    except TrackingError as error:
        # The labels are worth more than the log of their making.
        try:
            command = track.keep(plan.settings.output, ended)
            said = f"The run is not in MLflow; send it later with: {command} ({error})"
        except OSError as full:
            said = f"The run is not in MLflow, nor could it be kept to be sent later ({full}): {error}"
        _say(said, console)
    except OSError as error:
        _say(f"The run is in MLflow, and what was kept to send it cannot be deleted: {_sentence(error)}", console)


def _shown_settings(plan: Plan) -> dict[str, object]:
    settings = msgspec.to_builtins(plan.settings)
    return {**settings, "tracking_uri": without_secrets(plan.work.tracking_uri)}


def _say(sentence: str, console: Console) -> None:
    """What the user should know of a run that goes on."""
    console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _resume(plan: Plan) -> str:
    return f"What is finished is kept in {plan.work.staging.folder}: the same command goes on there."


def _sentence(error: BaseException) -> str:
    """The last line of an exception as one sentence: runners put the worker's whole traceback into the text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = _STEP.sub("", lines[-1]) if lines else type(error).__name__
    return last if last.endswith((".", "!", "?")) else f"{last}."


def _print_plan(plan: Plan, beam_options: PipelineOptions, out: Console) -> None:
    table = Table("setting", "value", title="What would be done", title_justify="left")
    for name, value in _shown_settings(plan).items():
        table.add_row(name, str(value))
    beam_settings = beam_options.get_all_options(drop_default=True)
    for name, value in sorted(beam_settings.items()):
        table.add_row(f"Beam: {name}", HIDDEN if is_secret(name) else without_secrets(str(value)))
    table.add_section()
    table.add_row("files", f"{len(plan.sources):,}")
    table.add_row("bytes", f"{plan.source_bytes:,}")
    chunks = sum(1 + source.size // plan.settings.chunk_bytes for source in plan.sources)
    table.add_row("chunks", f"at least {chunks:,}")
    table.add_row("model version", plan.work.provenance.model_version)
    table.add_row("run id", plan.work.provenance.run_id)
    out.print(table)


def _print_summary(summary: RunSummary, out: Console) -> None:
    table = Table(title=f"Run {summary.run_id}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("dialogues", f"{summary.dialogues:,}")
    table.add_row("turns", f"{summary.turns:,}")
    table.add_row("goals", f"{summary.goals:,}")
    table.add_row("goals not reached", f"{summary.unreached_goals:,}")
    table.add_section()
    for point in FailurePoint:
        count = summary.failure_points.get(point, 0)
        name = "turns correct" if point is FailurePoint.CORRECT else f"defects: {point}"
        table.add_row(name, f"{count:,} ({count / max(summary.turns, 1):.1%})")
    table.add_section()
    table.add_row("rejected", f"{summary.rejected_rows:,} of {summary.records:,} records")
    for reason, count in sorted(summary.rejected.items(), key=lambda each: -each[1]):
        table.add_row(f"rejected: {reason}", f"{count:,}")
    if summary.shortened_turns:
        table.add_row("turns with a text cut to the model's length", f"{summary.shortened_turns:,}")
    table.add_section()
    table.add_row("turns a second", f"{summary.turns_per_second:,.0f}")
    table.add_row("seconds", f"{summary.wall_seconds:,.1f}")
    out.print(table)
    out.print(f"Tables: {', '.join(f'{summary.output}/{name}' for name in TABLES)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["label", *sys.argv[1:]]))
