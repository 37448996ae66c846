"""One reader under libFuzzer: `python tests/fuzz/target.py FORMAT [option of libFuzzer | folder of inputs]…`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["schemas", "pipelines.chunks", "pipelines.records", "pipelines.sessions"]):
    from readers import check

from mutation import mutate

MEMORY = Path("/dev/shm")


def main() -> None:
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        files = Path(folder) / "files"
        atheris.Setup(
            sys.argv,
            lambda data: check(name, data, files),
            custom_mutator=lambda data, max_size, seed: mutate(data, max_size, seed, atheris.Mutate),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
