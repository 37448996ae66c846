"""The example files of `data/`: a few records of each format, written by hand after its specification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from schemas.formats import DialogueFormat, EventFormat, get_format
from schemas.log import Dialogue, TurnEvent

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def examples() -> Callable[[str], list[bytes]]:
    """The example records of a format, as JSON text."""

    def load(name: str) -> list[bytes]:
        lines = DATA / f"{name}.jsonl"
        if lines.exists():
            return lines.read_bytes().splitlines()
        elements = msgspec.json.decode((DATA / f"{name}.json").read_bytes(), type=list[msgspec.Raw])
        return [bytes(element) for element in elements]

    return load


@pytest.fixture(scope="session")
def dialogues(examples: Callable[[str], list[bytes]]) -> Callable[[str], list[Dialogue]]:
    """The example dialogues of a format, parsed."""

    def parse(name: str) -> list[Dialogue]:
        log_format = get_format(name)
        assert isinstance(log_format, DialogueFormat)
        return [dialogue for record in examples(name) for dialogue in log_format.parse(record)]

    return parse


@pytest.fixture(scope="session")
def events(examples: Callable[[str], list[bytes]]) -> Callable[[str], list[TurnEvent]]:
    """The example turn events of a format, parsed."""

    def parse(name: str) -> list[TurnEvent]:
        log_format = get_format(name)
        assert isinstance(log_format, EventFormat)
        return [log_format.parse_event(record) for record in examples(name)]

    return parse
