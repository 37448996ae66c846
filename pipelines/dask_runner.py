"""A Beam runner for Dask: what `--runner dask` names.

It runs what our graphs are made of: a chain of Create, ParDo, Reshuffle and GroupByKey, the DoFns of which have only
`process`, on elements that are small descriptions. Between two shuffles each element is one Dask task. The elements
come back to the launcher, which shuffles them; what they describe stays on storage. Another graph is refused.

Beam's own DaskRunner turns a graph into Dask bags, the partitions of which are settled before anything has run. There a
Reshuffle does nothing: whoever cuts a file labels all of it, and if that worker dies another one starts over.

A task that raises is tried again three times, as on Dataflow; one whose worker dies, as often as Dask's configuration
says (`distributed.scheduler.allowed-failures`). The tasks of our graphs can be done twice.
"""

from __future__ import annotations

import logging
import math
import os
import queue
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState
from distributed import Client, Future, LocalCluster
from distributed.security import Security

from pipelines.options import DaskOptions, processes_of_this_machine

_IN_FLIGHT = 10_000
"""Tasks that the scheduler is given at a time: it holds about a kilobyte of each, and a run can have millions."""
_RETRIES = 3
_PATIENCE = 60.0
"""Seconds that a scheduler may be without a worker."""


class DaskRunner(PipelineRunner):  # type: ignore[misc]
    """Runs on the scheduler that the options name, or else on a cluster of processes on this machine."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        """Runs the graph to its end.

        Raises `NotImplementedError` for a graph of another kind, `ConnectionError` where there is no scheduler or no
        worker, and what a DoFn has raised.
        """
        steps = _steps(pipeline)
        with _client(options.view_as(DaskOptions).dask_scheduler) as client:
            elements: list[Any] = []
            dofns: list[beam.DoFn] = []
            for step in steps:
                if isinstance(step, beam.Create):
                    elements = list(step.values)
                elif isinstance(step, beam.ParDo):
                    dofns.append(step.fn)
                else:
                    elements, dofns = list(_processed(client, dofns, elements, options)), []
                    if isinstance(step, beam.GroupByKey):
                        elements = _grouped(elements)
            for _ in _processed(client, dofns, elements, options):
                pass
        return _Finished(PipelineState.DONE)


class _Finished(PipelineResult):  # type: ignore[misc]
    def wait_until_finish(self, duration: int | None = None) -> str:
        state: str = self.state
        return state


def _steps(pipeline: beam.Pipeline) -> list[beam.PTransform]:
    """The transforms of a chain, in order."""
    chain = _Chain()
    pipeline.visit(chain)
    return [node.transform for node in chain.nodes]


class _Chain(PipelineVisitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.nodes: list[AppliedPTransform] = []
        self._within: AppliedPTransform | None = None

    def enter_composite_transform(self, node: AppliedPTransform) -> None:
        if self._within is None and isinstance(node.transform, (beam.Create, beam.Reshuffle)):
            self._add(node)
            self._within = node

    def leave_composite_transform(self, node: AppliedPTransform) -> None:
        if node is self._within:
            self._within = None

    def visit_transform(self, node: AppliedPTransform) -> None:
        if self._within is None:
            self._add(node)

    def _add(self, node: AppliedPTransform) -> None:
        transform = node.transform
        starts = isinstance(transform, beam.Create)
        follows = bool(self.nodes) and list(node.inputs) == list(self.nodes[-1].outputs.values())
        plain = isinstance(transform, (beam.Create, beam.Reshuffle, beam.GroupByKey)) or (
            isinstance(transform, beam.ParDo)
            and not transform.args
            and not transform.kwargs
            and _is_plain(transform.fn)
        )
        if not plain or starts == bool(self.nodes) or not (starts or follows):
            raise NotImplementedError(f"the step {node.full_label} is not of the kind that --runner dask can run")
        self.nodes.append(node)


def _is_plain(dofn: beam.DoFn) -> bool:
    hooks = ("setup", "start_bundle", "finish_bundle", "teardown", "process_batch")
    return all(getattr(type(dofn), hook) is getattr(beam.DoFn, hook) for hook in hooks)


@contextmanager
def _client(scheduler: str | None) -> Iterator[Client]:
    if scheduler is None:
        workers = processes_of_this_machine()
        with (
            # What can reach a scheduler can run code as its user: on this machine, too, it takes the key of this run.
            LocalCluster(
                workers,
                threads_per_worker=math.ceil((os.cpu_count() or 1) / workers),
                # A worker is not to be stopped for the memory that it has: the processes share that of the machine.
                memory_limit=None,
                dashboard_address=None,
                security=Security.temporary(),
                protocol="tls://",
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=_PATIENCE / 2)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"there is no Dask scheduler at {scheduler} ({error}): start one, or name another with --dask-scheduler"
        ) from error
    # As quiet as Beam is: what goes wrong is raised here.
    logging.getLogger("distributed.client").setLevel(logging.getLogger("apache_beam").getEffectiveLevel())
    with client:
        try:
            client.wait_for_workers(1, _PATIENCE)
        except TimeoutError:
            raise ConnectionError(
                f"the Dask scheduler at {scheduler} has no workers: start some with `dask worker {scheduler}`"
            ) from None
        yield client


def _processed(
    client: Client, dofns: Sequence[beam.DoFn], elements: Iterable[Any], options: PipelineOptions
) -> Iterator[Any]:
    """What the DoFns, one after the other, make of the elements, each in a task; in whatever order they end."""
    # A task, and no scattered data: it is done again where the worker that holds its result is lost.
    step = client.submit(_Step, list(dofns), options.get_all_options(drop_default=True), pure=False)
    waiting = iter(elements)
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    running: set[Future] = set()

    def start(count: int) -> None:
        for element in islice(waiting, count):
            future = client.submit(_run, step, element, retries=_RETRIES, pure=False)
            running.add(future)
            future.add_done_callback(ended.put)

    start(_IN_FLIGHT)
    while running:
        try:
            future = ended.get(timeout=_PATIENCE)
        except queue.Empty:
            if not client.scheduler_info()["workers"]:
                raise ConnectionError("no Dask worker is left: start some") from None
            continue
        running.discard(future)
        start(1)
        yield from future.result()


class _Step:
    """DoFns and what they are to be run with; made on each worker."""

    def __init__(self, dofns: Sequence[beam.DoFn], options: dict[str, Any]) -> None:
        self.dofns = dofns
        self.options = options


def _run(step: _Step, element: Any) -> list[Any]:
    FileSystems.set_options(PipelineOptions.from_dictionary(step.options))
    elements = [element]
    for dofn in step.dofns:
        elements = [made for each in elements for made in dofn.process(each) or ()]
    return elements


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return list(groups.items())
