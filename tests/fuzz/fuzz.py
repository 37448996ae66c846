"""Fuzzes every reader for a while, one after the other: `python tests/fuzz/fuzz.py --seconds 600`.

Needs the extra `fuzz`. Ends with 1 at the first input that breaks a promise of `readers.py` (a crash, a record that is
lost or doubled, 20 seconds for one input, 2 GB of memory), and says where that input lies. Once the reader is
mended, the input is kept in tests/fuzz/corpus/FORMAT, as small as it can be made.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mutation import PACKINGS, pack, unpack
from rich.console import Console
from rich.table import Table

from schemas.formats import formats

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "schemas" / "formats" / "data"
LIMITS = ["-timeout=1200", "-rss_limit_mb=2048", "-max_len=65536", "-len_control=0"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes the readers of all log formats.")
    parser.add_argument("--seconds", type=int, default=600, help="in all, over the formats (default: %(default)s)")
    parser.add_argument("--format", choices=list(formats()), action="append", help="only this one (default: all)")
    parser.add_argument(
        "--work", type=Path, default=Path("build/fuzz"), help="inputs that reach new code (default: %(default)s)"
    )
    options = parser.parse_args()
    names = options.format or list(formats())
    table = Table("reader", "inputs tried", "inputs kept", title="Nothing found", title_justify="left")
    for name in names:
        folder: Path = options.work / name
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(seeds(name)):
            (folder / "inputs" / f"seed-{number}").write_bytes(content)
        command = [sys.executable, str(HERE / "target.py"), name, str(folder / "inputs"), *LIMITS]
        command += [f"-max_total_time={options.seconds // len(names)}", "-print_final_stats=1"]
        command += [f"-artifact_prefix={folder}/"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, errors="replace", check=False, env=environment
        )
        (folder / "log").write_text(done.stderr)
        if done.returncode:
            Console(stderr=True).print(f"{name}: {done.stderr[-4_000:]}", markup=False, highlight=False)
            return 1
        tried = re.findall(r"number_of_executed_units:\s*(\d+)", done.stderr)
        table.add_row(name, f"{int(tried[-1]):,}", f"{len(list((folder / 'inputs').iterdir())):,}")
        Console().print(f"{name}: {int(tried[-1]):,} inputs, nothing found", highlight=False)
    Console().print(table)
    return 0


def seeds(name: str) -> Iterator[bytes]:
    """The examples of a format in every container, and what was found before."""
    example = next(EXAMPLES.glob(f"{'jsonl' if name == 'parquet' else name}.*"))
    records = unpack(example.read_bytes())
    for packing in dict.fromkeys(PACKINGS):
        yield pack(records, packing, random.Random(0))
    yield from (path.read_bytes() for path in sorted((HERE / "corpus").glob("*/*")))


if __name__ == "__main__":
    sys.exit(main())
