"""One reader under libFuzzer: `python tests/fuzz/target.py FORMAT [option of libFuzzer | folder of inputs]…`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["schemas", "pipelines.chunks", "pipelines.records", "pipelines.sessions"]):
    from readers import check

from mutation import mutate

SECONDS = 20
"""Of the processor for one input, at most: libFuzzer's own limit is of wall time, which another program can use up."""
MEMORY = Path("/dev/shm")


def main() -> None:
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        files = Path(folder) / "files"

        def read(data: bytes) -> None:
            started = time.process_time()
            check(name, data, files)
            taken = time.process_time() - started
            assert taken < SECONDS, f"one input takes {taken:.0f} seconds"

        atheris.Setup(
            sys.argv,
            read,
            custom_mutator=lambda data, max_size, seed: mutate(data, max_size, seed, atheris.Mutate),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
