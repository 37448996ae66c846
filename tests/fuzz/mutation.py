"""Changes that know what a log file is made of: its container, its records, and the values in them."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AWKWARD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**400,
    10**4_000,
    0.1,
    1e308,
    -1e308,
    5e-324,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\t\n\x0b\x1c\x85\u2028",
    "\x00",
    "\x1b[31m",
    "\u202eright to left\u202c",
    "\ufeff",
    "\ud800",
    "\udfff\ud800",
    "İ" * 3,
    "ǅ ß ﬁ",
    "e\u0301\u0327",
    "👩‍👩‍👧‍👦",
    "a" * 300,
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2024-02-30T00:00:00Z",
    "2024-01-01T00:00:60Z",
    "2024-01-01",
    "24:00:00",
    "2024-01-01 00:00:00.5 UTC",
    "1e999",
    "NaN",
    "{",
    "null",
    "[]",
    '{"queryResult": 1}',
    [],
    {},
    [None],
    [[]],
    {"": None},
]
_PARSE = (ValueError, RecursionError)
Mutator = Callable[[bytes, int], bytes]


def mutate(data: bytes, max_size: int, seed: int, mutate_bytes: Mutator) -> bytes:
    """Another file like `data`, of at most `max_size` bytes. `mutate_bytes` changes bytes without knowing them."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return mutate_bytes(data, max_size)
    records = unpack(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        records = _change_records(records, rng, mutate_bytes)
    packed = pack(records, rng.choice(PACKINGS), rng)
    if rng.random() < 0.05:
        packed = packed[: rng.randrange(len(packed) + 1)]
    return packed if len(packed) <= max_size else mutate_bytes(data, max_size)


def unpack(data: bytes) -> list[bytes]:
    """The records of a file as well as they can be told apart."""
    try:
        if data.startswith(b"PAR1"):
            return [_text(row) for row in pq.read_table(io.BytesIO(data)).slice(0, 20).to_pylist()]
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(wbits=31).decompress(data, 1 << 18)
        if data.lstrip().startswith(b"["):
            return [_text(element) for element in json.loads(data)][:100]
    # What cannot be unpacked is changed as it is.
    except Exception:
        pass
    return data.split(b"\n")[:100]


PACKINGS = ("lines", "lines", "array", "indented", "object", "gzip", "gzip array", "gzip members", "parquet")


def pack(records: Sequence[bytes], packing: str, rng: random.Random) -> bytes:
    """A file of these records."""
    if packing == "parquet":
        try:
            rows = [row for record in records if isinstance(row := json.loads(record), dict)]
            sink = io.BytesIO()
            options: dict[str, Any] = {"row_group_size": rng.choice([1, 2, 100]), "use_dictionary": rng.random() < 0.5}
            pq.write_table(_damaged(pa.Table.from_pylist(rows), rng), sink, **options)
            return sink.getvalue()
        # Not every list of records has one schema.
        except Exception:
            packing = "lines"
    if packing in ("array", "gzip array"):
        content = b"[" + rng.choice([b",", b", ", b",\n"]).join(records) + b"]"
    elif packing == "indented":
        try:
            content = json.dumps([json.loads(record) for record in records], indent=1).encode()
        except _PARSE:
            content = b"[\n" + b",\n".join(records) + b"\n]"
    elif packing == "object" and records:
        content = records[0].replace(b":", b":\n")
    else:
        content = rng.choice([b"\n", b"\n", b"\r\n", b"\n\n"]).join(records)
    if packing == "gzip members":
        return b"".join(gzip.compress(record + b"\n", 1, mtime=0) for record in records)
    return gzip.compress(content, 1, mtime=0) if packing.startswith("gzip") else content


def _damaged(table: pa.Table, rng: random.Random) -> pa.Table:
    """The table, now and then with a column of a kind that JSON does not have, or with text that is not UTF-8."""
    if rng.random() < 0.5 or not table.num_columns:
        return table
    index = rng.randrange(table.num_columns)
    name, rows = table.column_names[index], table.num_rows
    time = rng.choice([0, 2**40, -(2**62), 2**62, None])
    column = rng.choice(
        [
            lambda: pa.array(
                [time] * rows, pa.timestamp(rng.choice(["s", "ms", "us", "ns"]), rng.choice([None, "UTC"]))
            ),
            lambda: pa.array([time] * rows, pa.duration("s")),
            lambda: pa.array([10**30] * rows, pa.decimal128(38, 2)),
            lambda: pa.array([b"\xff\x00"] * rows, pa.binary()),
            lambda: pa.array([b"\xff\xfe"] * rows, pa.binary()).view(pa.string()),
            lambda: pa.array([b"a\xed\xa0\x80"] * rows, pa.binary()).view(pa.string()).dictionary_encode(),
            lambda: pa.array([[("a", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
            lambda: pa.nulls(rows),
            lambda: pa.array([None] * rows, table.column(index).type),
            lambda: table.column(rng.randrange(table.num_columns)),
        ]
    )()
    return table.set_column(index, name, column)


def _text(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


def _change_records(records: list[bytes], rng: random.Random, mutate_bytes: Mutator) -> list[bytes]:
    if not records:
        return [_text(rng.choice(AWKWARD))]
    index = rng.randrange(len(records))
    record = records[index]
    match rng.choice(["value"] * 12 + ["bytes", "bytes", "again", "drop", "blank", "mark", "encode", "swap", "cut"]):
        case "value":
            changed = [_change_value(record, records, rng)]
        case "bytes":
            changed = [mutate_bytes(record, len(record) + 64)]
        case "again":
            changed = [record, record]
        case "drop":
            changed = []
        case "blank":
            changed = [record, rng.choice([b"", b" ", b"\r", b"\x0b", b","])]
        case "mark":
            changed = [b"\xef\xbb\xbf" + record]
        case "encode":
            changed = [
                record.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-le", "latin-1"]), "replace")
            ]
        case "swap":
            changed = [rng.choice(records)]
        case _:
            changed = [record[: rng.randrange(len(record) + 1)]]
    return [*records[:index], *changed, *records[index + 1 :]]


def _change_value(record: bytes, records: Sequence[bytes], rng: random.Random) -> bytes:
    try:
        root: Any = [json.loads(record)]
        other: Any = json.loads(rng.choice(records))
    except _PARSE:
        return record
    container, key = rng.choice(_places(root))
    value = container[key]
    match rng.choice(["awkward"] * 4 + ["nested", "elsewhere", "drop", "repeat", "rename", "text", "number"]):
        case "awkward":
            container[key] = rng.choice(AWKWARD)
        case "nested":
            depth = rng.choice([1, 3, 50, 400])
            for _ in range(depth):
                value = [value] if rng.random() < 0.5 else {"a": value}
            container[key] = value
        case "elsewhere":
            inner, name = rng.choice(_places([other]))
            container[key] = inner[name]
        case "drop" if container is not root:
            del container[key]
        case "repeat" if isinstance(value, list) and value:
            container[key] = value * rng.choice([2, 7, 40])
        case "rename" if isinstance(container, dict):
            container[rng.choice(["", "\x00", "\ud800", "turns", "text", f"{key}x"])] = container.pop(key)
        case "text" if isinstance(value, str):
            text = rng.choice([each for each in AWKWARD if isinstance(each, str)])
            container[key] = rng.choice([value + text, text + value, value[:1], value.upper(), value * 3])
        case "number" if isinstance(value, int | float):
            container[key] = rng.choice([-value, value + 1, value * 10**9, str(value)])
        case _:
            container[key] = rng.choice(AWKWARD)
    try:
        return json.dumps(root[0], ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")
    except _PARSE:
        return record


def _places(root: Any) -> list[tuple[Any, Any]]:
    """Every place of a value in `root`: what it lies in, and under which key."""
    found: list[tuple[Any, Any]] = []
    pending = [root]
    while pending and len(found) < 2_000:
        container = pending.pop()
        members = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in members:
            found.append((container, key))
            if isinstance(value, dict | list):
                pending.append(value)
    return found
