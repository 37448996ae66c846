"""What a log format must say, and how one is found by name.

A format turns one *record* into dialogues or one turn event. A record is one line of a JSON Lines file (as
bytes), one element of a JSON array, or one row of a Parquet file (both as mappings). Where records begin and
end, compression and file systems are not a format's business: `pipelines.chunks` sees to that.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from schemas.log import Dialogue, TurnEvent

RawRecord = bytes | Mapping[str, Any]


class UnknownFormatError(ValueError):
    """The user named a format that does not exist."""


def as_text(value: Any) -> str:
    """A JSON value as the text of a slot: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class LogFormat(ABC):
    """Base of all formats; derive from one of the two below."""

    name: ClassVar[str]
    """What `--input-format` calls it."""
    source: ClassVar[str]
    """Where the format is specified: a document's title or address."""


class DialogueFormat(LogFormat):
    """A format in which a record holds whole dialogues."""

    @abstractmethod
    def parse(self, record: RawRecord) -> list[Dialogue]:
        """The record's dialogues, validated, at least one.

        Raises `RecordError` where the record is not of this format.
        """


class EventFormat(LogFormat):
    """A format in which a record is one turn; the job groups turns into dialogues."""

    @abstractmethod
    def parse_event(self, record: RawRecord) -> TurnEvent:
        """The record's turn.

        Raises `RecordError` where the record is not of this format.
        """


@functools.cache
def formats() -> Mapping[str, LogFormat]:
    """Every format by name, in alphabetical order."""
    import schemas.formats as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    found = [
        subclass()
        for base in (DialogueFormat, EventFormat)
        for subclass in base.__subclasses__()
        if not subclass.__abstractmethods__
    ]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def get_format(name: str) -> LogFormat:
    """The format called `name`. Raises `UnknownFormatError`, which lists the right names."""
    try:
        return formats()[name]
    except KeyError:
        raise UnknownFormatError(f"Unknown input format {name!r}: choose one of {', '.join(formats())}.") from None
