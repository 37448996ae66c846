"""Command lines: the project's own options first, what is left goes to Beam, what is left then is a mistake.

Beam itself drops options that it does not know without a word. Ours are no `PipelineOptions` because Beam puts
all such classes of a process into one parser, in which `--experiment` is taken and jobs would clash.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, _BeamArgumentParser
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner

from pipelines.errors import UserError

LOCAL_RUNNER = "FnApiRunner"
"""The default. Beam's own default, DirectRunner, first tries to download another runner."""

DASK = "dask"
_OUR_RUNNERS = {LOCAL_RUNNER: "pipelines.local_runner.LocalRunner", DASK: "pipelines.dask_runner.DaskRunner"}

_PROCESSES = {"processes", "direct_num_workers", "direct_running_mode"}
"""Options that say how many processes work."""
_PROCESS_BYTES = 2 << 30
"""Memory that a worker process on this machine is counted with."""
_WORTH_A_PROCESS = 32 << 20
"""Bytes of log for each worker process: it takes some seconds until it has started and loaded the model."""


class Device(StrEnum):
    """Where a model computes, by PyTorch's names."""

    CPU = "cpu"
    CUDA = "cuda"


class DaskOptions(PipelineOptions):  # type: ignore[misc]
    """Where `--runner dask` finds its workers; Beam knows it, too, so that it gets to the runner."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--dask-scheduler",
            metavar="ADDRESS",
            help=f"with --runner {DASK}: address of the scheduler, tcp://HOST:PORT or tls://HOST:PORT "
            "(default: workers on this machine)",
        )


class LocalOptions(PipelineOptions):  # type: ignore[misc]
    """How many processes of this machine work."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--processes",
            type=whole_number,
            metavar="N",
            help=f"with --runner {LOCAL_RUNNER}: processes that work, which share the cores (default: this one; "
            "faultline label takes one for each core where the log is large and the memory suffices)",
        )


class OptionParser(argparse.ArgumentParser):
    """Raises `UserError`, one sentence, where argparse prints its usage and exits."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help).")

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse has it; what is not UTF-8 is a mistake, as neither the tables nor MLflow could have it."""
        given = list(sys.argv[1:] if args is None else args)
        for each in given:
            if not is_utf8(each):
                self.error(f"{each!a} is not UTF-8")
        return super().parse_known_args(given, namespace)

    def parse_with_beam(self, argv: Sequence[str]) -> tuple[argparse.Namespace, PipelineOptions]:
        """Our options and Beam's. Raises `UserError` for an option that neither knows."""
        self.add_argument(
            "--runner",
            default=LOCAL_RUNNER,
            metavar="NAME",
            help=f"what does the work: {LOCAL_RUNNER} (processes of this machine), {DASK}, DataflowRunner, "
            "PortableRunner, or another one of Beam's (default: %(default)s)",
        )
        LocalOptions._add_argparse_args(self)
        DaskOptions._add_argparse_args(self)
        ours, rest = self.parse_known_args(argv)
        if ours.dask_scheduler is not None and ours.runner != DASK:
            self.error(f"--dask-scheduler goes with --runner {DASK}")
        if ours.processes is not None and ours.runner != LOCAL_RUNNER:
            self.error(f"--processes goes with --runner {LOCAL_RUNNER}")
        beam_parser = _BeamParser(prog=self.prog, add_help=False, allow_abbrev=False)
        for options in PipelineOptions.__subclasses__():
            options._add_argparse_args(beam_parser)
        _, unknown = beam_parser.parse_known_args(rest)
        if unknown:
            known = [*self._option_string_actions, *beam_parser._option_string_actions]
            # Without what it is set to, which can be a password.
            name = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {close[0]}" if close else ""
            self.error(f"unknown option {name}{hint}")
        runner = _OUR_RUNNERS.get(ours.runner, ours.runner)
        try:
            created = create_runner(runner)
        except (ValueError, ImportError, AttributeError) as error:
            extra = f": install Faultline with the extra {DASK}" if ours.runner == DASK else ""
            self.error(f"cannot use --runner {ours.runner} ({error}){extra}")
        if "Dataflow" not in ours.runner and any(each.startswith("--template_location") for each in rest):
            self.error("--template_location goes with --runner DataflowRunner")
        beam_options = PipelineOptions(
            rest, runner=runner, dask_scheduler=ours.dask_scheduler, processes=ours.processes
        )
        if ours.processes is not None:
            _start_processes(beam_options.view_as(DirectOptions), ours.processes)
        if mistakes := PipelineOptionsValidator(beam_options, created).validate():
            self.error("; ".join(each.rstrip(".") for each in mistakes))
        _share_cores(beam_options.view_as(DirectOptions))
        return ours, beam_options


def add_device(parser: OptionParser) -> None:
    """Adds the option that says where the model computes."""
    parser.add_argument(
        "--device",
        choices=list(Device),
        default=Device.CPU,
        help="where the model computes: cuda is a GPU, for which torch must be its CUDA build (default: %(default)s)",
    )


def is_local(options: PipelineOptions) -> bool:
    """Whether processes of this machine do the work."""
    return bool(options.get_all_options(drop_default=True)["runner"] == _OUR_RUNNERS[LOCAL_RUNNER])


def use_the_machine(options: PipelineOptions, size: int) -> None:
    """Gives a log of `size` bytes the processes that this machine has and that are worth their start.

    Changes nothing for another runner, nor where the user has said how many. Who has set OMP_NUM_THREADS has said how
    many threads each has.
    """
    if not is_local(options) or options.get_all_options(drop_default=True).keys() & _PROCESSES:
        return
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = (os.cpu_count() or 1) // (int(threads) if threads.isdecimal() and int(threads) else 1)
    processes = min(processes_of_this_machine(), cores, size // _WORTH_A_PROCESS)
    if processes > 1:
        _start_processes(options.view_as(DirectOptions), processes)
        _share_cores(options.view_as(DirectOptions))


def processes_of_this_machine() -> int:
    """One for each core, or fewer where there is less memory for each than a worker may need."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // _PROCESS_BYTES))


def _start_processes(options: DirectOptions, processes: int) -> None:
    options.direct_num_workers = processes
    options.direct_running_mode = "multi_processing" if processes > 1 else "in_memory"


def _share_cores(options: DirectOptions) -> None:
    """Lets worker processes, which inherit the environment, divide the cores among them.

    Each would start a thread for every core, which then wait for each other: two workers on two cores are several
    times slower than one.
    """
    if options.direct_running_mode == "multi_processing":
        cores = os.cpu_count() or 1
        # Beam's 0 is as many as there are cores.
        options.direct_num_workers = options.direct_num_workers or cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // options.direct_num_workers, 1)))


class _BeamParser(_BeamArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help).")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can write it. What it cannot, Python has of a file's name or an argument that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_number(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """For argparse: a whole number of at least 1 that all who draw numbers can begin with, so less than 2³²."""
    if not text.isdecimal() or not 1 <= int(text) < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {(1 << 32) - 1}")
    return int(text)


def positive(text: str) -> float:
    """For argparse: a number greater than 0."""
    return _between(text, 0.0, float("inf"), "a number greater than 0", open_below=True)


def not_negative(text: str) -> float:
    """For argparse: a number of at least 0."""
    return _between(text, 0.0, float("inf"), "a number of at least 0")


def fraction(text: str) -> float:
    """For argparse: a number from 0 to 1."""
    return _between(text, 0.0, 1.0, "a number from 0 to 1")


def _between(text: str, low: float, high: float, what: str, *, open_below: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (low <= value <= high) or value == float("inf") or (open_below and value == low):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
