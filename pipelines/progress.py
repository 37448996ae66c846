"""How far a run is, seen from the results that appear in its staging folder: the same on every engine."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipelines.results import Counts, add
from pipelines.staging import Staging

_POLL_SECONDS = 1.0
_LINE_SECONDS = 30.0


class RunProgress:
    """Shows progress on standard error while it is entered: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, staging: Staging, total_bytes: int, console: Console, *, shown: bool) -> None:
        self._staging = staging
        self._total_bytes = max(total_bytes, 1)
        self._console = console
        self._shown = shown
        self._known = staging.finished()
        self.before = add(result.counts for result in staging.results(sorted(self._known)))
        """What former tries of this run have labelled."""
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self.labelled = Counts()
        """What this try has labelled, without what it found finished."""

    def __enter__(self) -> RunProgress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self._look()

    @property
    def turns_per_second(self) -> float:
        return self.labelled.turns / max(time.monotonic() - self._started, 1e-9)

    def _look(self) -> None:
        new = sorted(self._staging.finished() - self._known)
        self._known.update(new)
        self.labelled = add([self.labelled, *(result.counts for result in self._staging.results(new))])

    def _watch(self) -> None:
        if self._shown and self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self._console, transient=True) as bar:
                task = bar.add_task("Reading the input", total=1.0, state="")
                while not self._stop.wait(_POLL_SECONDS):
                    if self._try_look():
                        bar.update(task, description="Labelling", completed=self._share(), state=self._state())
        else:
            said = time.monotonic()
            while not self._stop.wait(_POLL_SECONDS):
                self._try_look()
                if self._shown and time.monotonic() - said >= _LINE_SECONDS:
                    said = time.monotonic()
                    self._console.print(f"{self._share():.0%} {self._state()}", highlight=False)

    def _try_look(self) -> bool:
        try:
            self._look()
        except OSError:
            # A listing that fails now works the next time, or the run itself says what is wrong.
            return False
        return self.labelled.records > 0

    def _share(self) -> float:
        return min((self.before.source_bytes + self.labelled.source_bytes) / self._total_bytes, 1.0)

    def _state(self) -> str:
        turns = self.before.turns + self.labelled.turns
        left = self._total_bytes - self.before.source_bytes - self.labelled.source_bytes
        state = f"{turns:,} turns · {self.turns_per_second:,.0f} turns/s"
        if self.labelled.source_bytes:
            seconds = left * (time.monotonic() - self._started) / self.labelled.source_bytes
            state += f" · {_duration(max(seconds, 0))} left"
        return state


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
