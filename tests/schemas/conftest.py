"""Arrow schemas as text, for the files in `golden/` that pin each to its version."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest


def _lines(field: pa.Field, indent: str) -> list[str]:
    inner = list(field.type) if pa.types.is_struct(field.type) else []
    kind = "struct" if inner else str(field.type)
    if pa.types.is_list(field.type):
        kind, inner = "list", [field.type.value_field.with_name("of")]
    metadata = "".join(f"; {key.decode()}: {value.decode()}" for key, value in sorted((field.metadata or {}).items()))
    line = f"{indent}{field.name}: {kind}{'' if field.nullable else ' not null'}{metadata}"
    return [line, *(each for member in inner for each in _lines(member, indent + "  "))]


@pytest.fixture(scope="session")
def described() -> Callable[[pa.Schema], str]:
    """A line a column: its type, whether it may be null, its metadata; what is inside of it, indented."""
    return lambda schema: "".join(f"{line}\n" for field in schema for line in _lines(field, ""))
