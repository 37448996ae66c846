"""What `faultline drift` says of samples that differ by chance alone.

    python benchmarks/drift.py --labels out --dialogues 806 --pairs 20

Draws pairs of samples from one labelled output, no dialogue being in both of a pair, and compares them as `faultline
drift` compares two outputs, so any alarm is a false one. Beside the alarms stands how many pairs would have raised one
if the PSI alone decided, and the largest PSI. On an output of your own it says whether runs of that many dialogues are
large enough for the `--threshold` that you have in mind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipelines.cli import guarded
from pipelines.distributions import MODERATE, QUANTITIES, Drift, drifts
from pipelines.errors import UserError
from pipelines.labelled import Labelled
from pipelines.options import positive, seed, whole_number


def main() -> None:
    """Compares the pairs, and prints what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--labels", required=True, metavar="DIR", help="an --output of faultline label")
    parser.add_argument("--dialogues", type=whole_number, required=True, metavar="N", help="dialogues of each sample")
    parser.add_argument("--pairs", type=whole_number, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--threshold", type=positive, default=MODERATE, metavar="PSI", help="default: %(default)s")
    parser.add_argument("--seed", type=seed, default=1, metavar="S", help="default: %(default)s")
    options = parser.parse_args()
    with Labelled.open(options.labels) as labelled:
        compared = [drifts(*pair).drifts for pair in pairs(labelled, options.dialogues, options.pairs, options.seed)]
    Console(width=120).print(summary(compared, options.dialogues, options.threshold))


def pairs(labelled: Labelled, dialogues: int, count: int, seed: int) -> Iterator[tuple[Labelled, Labelled]]:
    """`count` pairs of samples of so many dialogues, each pair gone when the next is asked for.

    Raises `UserError` where the output has too few dialogues.
    """
    ids = labelled.connection.sql("SELECT dataset, dialogue_id FROM dialogues ORDER BY ALL").to_arrow_table()
    if len(ids) < 2 * dialogues:
        raise UserError(f"{labelled.folder} has {len(ids):,} dialogues: give a --dialogues of 1 to {len(ids) // 2:,}.")
    generator = np.random.default_rng(seed)
    for _ in range(count):
        drawn = ids.take(generator.permutation(len(ids))[: 2 * dialogues])
        with ExitStack() as resources:
            halves = drawn.slice(0, dialogues), drawn.slice(dialogues)
            ours, theirs = (resources.enter_context(_sample(labelled, half)) for half in halves)
            yield ours, theirs


def _sample(labelled: Labelled, ids: pa.Table) -> Labelled:
    # A cursor is a connection of its own, in which temporary tables stand before those of the database.
    connection = labelled.connection.cursor()
    connection.register("ids", ids)
    for table in {quantity.table: None for quantity in QUANTITIES}:
        connection.execute(f"CREATE TEMP TABLE {table} AS FROM {table} SEMI JOIN ids USING (dataset, dialogue_id)")
    resources = ExitStack()
    resources.callback(connection.close)
    return Labelled(labelled.folder, labelled.manifests, connection, labelled.notes, resources)


def summary(compared: Sequence[Sequence[Drift]], dialogues: int, threshold: float) -> Table:
    """A row with what all pairs raised."""
    largest = [max(each.psi for each in drifts) for drifts in compared]
    table = Table("dialogues of each sample", "pairs", "alarms", "by PSI alone", "largest PSI: median, maximum")
    table.add_row(
        f"{dialogues:,}",
        f"{len(compared):,}",
        f"{sum(any(each.exceeds(threshold) for each in drifts) for drifts in compared):,}",
        f"{sum(psi >= threshold for psi in largest):,}",
        f"{np.median(largest):.3f}, {max(largest):.3f}",
    )
    return table


if __name__ == "__main__":
    sys.exit(guarded(main))
