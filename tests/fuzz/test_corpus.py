"""What the fuzzer found stays mended: every input of `corpus/FORMAT` keeps the promises of `readers.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from readers import check

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_read_or_rejected(path: Path, tmp_path: Path) -> None:
    check(path.parent.name, path.read_bytes(), tmp_path / "files")
