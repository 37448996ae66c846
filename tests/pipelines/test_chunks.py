"""Cutting files into chunks and reading them back."""

from __future__ import annotations

import errno
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import chunks, storage
from pipelines.chunks import Chunk, ChunkSize, SourceFile, Spool, cut, first_records, read_records
from pipelines.errors import RunFailed
from schemas.rejects import RejectReason

RECORDS = [json.dumps({"dialogue_id": f"d{index}", "text": "x" * index}).encode() for index in range(50)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"), str(tmp_path / "tmp"), lambda chunk_id: False)


def source(path: Path, content: bytes) -> SourceFile:
    path.write_bytes(content)
    return SourceFile(0, str(path), len(content), 0.0)


def read(cut_chunks: Iterator[Chunk] | list[Chunk]) -> list[tuple[int, object]]:
    """Position and record, or the reason of the reject, of everything in the chunks."""
    found: list[tuple[int, object]] = []
    for chunk in cut_chunks:
        found += [(each.position, each.reason) for each in chunk.rejects]
        found += [(position, error.reason if error else record) for position, record, error in read_records(chunk)]
    return sorted(found, key=lambda each: each[0])


@pytest.mark.parametrize("size", [ChunkSize(1), ChunkSize(100), ChunkSize(700, 3), ChunkSize()])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_plain_lines_come_with_their_numbers_whatever_the_chunk_size(
    tmp_path: Path, spool: Spool, size: ChunkSize, end: bytes
) -> None:
    file = source(tmp_path / "log.jsonl", b"\n".join(RECORDS) + end)
    assert read(cut(file, spool, size)) == list(enumerate(RECORDS, start=1))


@pytest.mark.parametrize("size", [ChunkSize(1), ChunkSize(700, 3), ChunkSize()])
def test_gzip_is_known_by_its_content(tmp_path: Path, spool: Spool, size: ChunkSize) -> None:
    file = source(tmp_path / "no-gz-in-its-name", gzip.compress(b"\n".join(RECORDS)))
    assert read(cut(file, spool, size)) == list(enumerate(RECORDS, start=1))


def test_blocks_end_anywhere_in_a_line(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_BLOCK", 7)
    file = source(tmp_path / "log.jsonl", b"\n".join(RECORDS))
    zipped = source(tmp_path / "log.gz", gzip.compress(b"\n".join(RECORDS)))
    for each in (file, zipped):
        assert read(cut(each, spool, ChunkSize(200))) == list(enumerate(RECORDS, start=1))


def test_blank_lines_are_no_records_but_count_as_lines(tmp_path: Path, spool: Spool) -> None:
    file = source(tmp_path / "log.jsonl", b"\n\n{}\r\n  \n\n{}\n\n")
    assert [position for position, _ in read(cut(file, spool, ChunkSize(3)))] == [3, 6]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path, spool: Spool, pack: type[bytes]) -> None:
    file = source(tmp_path / "log.jsonl", pack(b"\xef\xbb\xbf{}\n{}\n"))
    assert read(cut(file, spool, ChunkSize())) == [(1, b"{}"), (2, b"{}")]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_elements_of_a_json_array_are_records(
    tmp_path: Path, spool: Spool, indent: int | None, pack: type[bytes]
) -> None:
    array = [json.loads(record) for record in RECORDS]
    file = source(tmp_path / "log.json", pack(json.dumps(array, indent=indent).encode()))
    records = read(cut(file, spool, ChunkSize(300)))
    assert [position for position, _ in records] == list(range(1, 51))
    assert [json.loads(record) for _, record in records if isinstance(record, bytes)] == array


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("block", [1, 7, 1_000])
def test_a_bad_element_of_a_json_array_costs_no_other(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, block: int, pack: type[bytes]
) -> None:
    monkeypatch.setattr(chunks, "_BLOCK", block)
    elements = [b'{"a": "\\\\\\"],[{"}', b'{"b": NaN}', b'{"c": [1, {}]}', b"\xff", b'{"d": tru', b"{}"]
    file = source(
        tmp_path / "log.json", pack(b"\xef\xbb\xbf\n[" + b",".join(elements[:5]) + b"},," + elements[5] + b" ]\n")
    )
    assert read(cut(file, spool, ChunkSize(20))) == [
        *enumerate([*elements[:4], elements[4] + b"}"], start=1),
        (6, RejectReason.INVALID_JSON),
        (7, b"{} "),
    ]


def test_a_line_end_in_a_string_of_an_array_stays_a_fault(tmp_path: Path, spool: Spool) -> None:
    file = source(tmp_path / "log.json", b'[{"a":\n"b\nc"}]')
    assert read(cut(file, spool, ChunkSize())) == [(1, b'{"a":\r"b\rc"}')]


def test_what_follows_a_json_array_is_one_reject(tmp_path: Path, spool: Spool) -> None:
    file = source(tmp_path / "log.json", b'[{"a": 1}] [{"b": 2}]')
    assert read(cut(file, spool, ChunkSize())) == [(1, b'{"a": 1}'), (2, RejectReason.INVALID_JSON)]


@pytest.mark.parametrize("content", [b"[]", b"[\n ]\n"])
def test_an_empty_json_array_has_no_records(tmp_path: Path, spool: Spool, content: bytes) -> None:
    assert list(cut(source(tmp_path / "log.json", content), spool, ChunkSize())) == []


def test_a_json_document_over_several_lines_is_one_record(tmp_path: Path, spool: Spool) -> None:
    file = source(tmp_path / "tracker.json", json.dumps({"sender_id": "a", "events": []}, indent=2).encode())
    ((position, record),) = read(cut(file, spool, ChunkSize()))
    assert position == 1
    assert isinstance(record, bytes)
    assert json.loads(record)["sender_id"] == "a"


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_json_document_with_a_line_a_turn_is_one_record(
    tmp_path: Path, spool: Spool, turns: int, pack: type[bytes]
) -> None:
    lines = ['{"dialogue_id": "a", "turns": [', ",\n".join(['  {"text": "play some jazz"}'] * turns), "]}\n"]
    file = source(tmp_path / "log.json", pack("\n".join(lines).encode()))
    ((_, record),) = read(cut(file, spool, ChunkSize()))
    assert isinstance(record, bytes)
    assert json.loads(record) == {"dialogue_id": "a", "turns": [{"text": "play some jazz"}] * turns}


@pytest.mark.parametrize("pack", [bytes, lambda content: gzip.compress(content)[:-9]])
def test_lines_in_a_json_file_stay_lines_where_several_are_damaged(
    tmp_path: Path, spool: Spool, pack: Callable[[bytes], bytes]
) -> None:
    lines = [b'{"a": ', b'{"b": ', *RECORDS]
    file = source(tmp_path / "log.json", pack(b"\n".join(lines)))
    assert read(cut(file, spool, ChunkSize()))[:40] == list(enumerate(lines, start=1))[:40]


def test_lines_in_a_json_file_stay_lines_even_if_the_first_is_damaged(tmp_path: Path, spool: Spool) -> None:
    lines = [b'{"a": ', *RECORDS]
    file = source(tmp_path / "log.json", b"\n".join(lines))
    assert read(cut(file, spool, ChunkSize())) == list(enumerate(lines, start=1))


def test_of_a_json_array_that_breaks_off_the_elements_before_that_are_read(tmp_path: Path, spool: Spool) -> None:
    file = source(tmp_path / "log.json", b'[{"a": 1}, {"b"')
    assert read(cut(file, spool, ChunkSize())) == [(1, b'{"a": 1}'), (2, RejectReason.TRUNCATED_FILE)]


def test_everything_before_the_end_of_a_truncated_gzip_is_read(tmp_path: Path, spool: Spool) -> None:
    noise = [f"{index * 7919 % 100_003:06d}".encode() for index in range(20_000)]
    whole = gzip.compress(b"\n".join(noise))
    file = source(tmp_path / "log.gz", whole[: len(whole) // 2])
    *records, (last, reason) = read(cut(file, spool, ChunkSize(10_000)))
    assert reason == RejectReason.TRUNCATED_FILE
    assert len(records) > 5_000
    assert records == list(enumerate(noise[: last - 1], start=1))


def test_a_gzip_stream_that_is_damaged_is_told_from_a_truncated_one(tmp_path: Path, spool: Spool) -> None:
    content = bytearray(gzip.compress(b"\n".join(RECORDS)))
    content[-6] ^= 0xFF  # in the checksum: every record before it is whole
    file = source(tmp_path / "log.gz", bytes(content))
    *records, (_, reason) = read(cut(file, spool, ChunkSize()))
    assert reason == RejectReason.CORRUPT_FILE
    assert [record for _, record in records] == RECORDS[: len(records)]
    assert len(records) >= len(RECORDS) - 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_record_over_the_limit_is_rejected_and_those_around_it_are_read(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, pack: type[bytes]
) -> None:
    monkeypatch.setattr(chunks, "RECORD_LIMIT", 1_000)
    monkeypatch.setattr(chunks, "_BLOCK", 64)
    file = source(tmp_path / "log", pack(b"{}\n" + b"x" * 50_000 + b"\n{}\n"))
    assert read(cut(file, spool, ChunkSize())) == [(1, b"{}"), (2, RejectReason.RECORD_TOO_LARGE), (3, b"{}")]


def test_a_file_that_cannot_be_opened_is_one_reject(tmp_path: Path, spool: Spool) -> None:
    file = SourceFile(0, str(tmp_path), 0, 0.0)  # a folder
    assert read(cut(file, spool, ChunkSize())) == [(0, RejectReason.UNREADABLE_FILE)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_was_read_before_a_disk_fails_is_kept(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, pack: type[bytes]
) -> None:
    file = source(tmp_path / "log", pack(b"\n".join(RECORDS)))
    monkeypatch.setattr(chunks, "_BLOCK", 100)
    whole = list(cut(file, spool, ChunkSize(300)))

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > file.size // 2:
                raise OSError("the disk failed")
            return super().read(min(size or 100, 100))

    monkeypatch.setattr(storage, "open_file", lambda path: Failing(Path(path).read_bytes()))
    *before, last = cut(file, spool, ChunkSize(300))
    assert before == whole[: len(before)]
    assert last.id not in {chunk.id for chunk in before}
    assert [(each.position, each.reason) for each in last.rejects] == [(0, RejectReason.UNREADABLE_FILE)]


def in_parquet(_: bytes) -> bytes:
    """A row group, too large for a small chunk."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [record.decode() for record in RECORDS]}), sink, compression="none")
    return bytes(sink.getvalue())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, in_parquet])
@pytest.mark.parametrize(
    "error",
    [TimeoutError(errno.ETIMEDOUT, "timed out"), OSError(errno.ESTALE, "stale handle"), storage.StoreError("503")],
)
def test_a_store_that_may_answer_the_next_time_costs_no_file(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], error: OSError
) -> None:
    file = source(tmp_path / "log", pack(b"\n".join(RECORDS)))

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() < file.size // 2 and size != 4:
                raise error
            return super().read(size)

    monkeypatch.setattr(storage, "open_file", lambda path: Failing(Path(path).read_bytes()))
    with pytest.raises(RunFailed, match=r"Cannot read .*log now"):
        list(cut(file, spool, ChunkSize(300)))


def test_rows_that_the_store_does_not_give_now_are_not_rejected(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chunk,) = cut(source(tmp_path / "log", in_parquet(b"")), spool, ChunkSize())

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 4:
                raise TimeoutError(errno.ETIMEDOUT, "timed out")
            return super().read(size)

    monkeypatch.setattr(storage, "open_file", lambda path: Failing(Path(path).read_bytes()))
    with pytest.raises(TimeoutError):
        list(read_records(chunk))


@pytest.mark.parametrize("pack", [gzip.compress, in_parquet])
def test_an_output_that_cannot_be_looked_into_is_no_fault_of_the_input(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    def is_finished(chunk_id: str) -> bool:
        raise storage.StoreError("503")

    spool = Spool(str(tmp_path / "spool"), str(tmp_path / "tmp"), is_finished)
    with pytest.raises(RunFailed, match=r"Cannot look into .*spool"):
        list(cut(source(tmp_path / "log", pack(b"\n".join(RECORDS))), spool, ChunkSize(300)))


def test_line_ends_alone_make_no_chunks(tmp_path: Path, spool: Spool) -> None:
    file = source(tmp_path / "log.gz", gzip.compress(b"\n" * 100_000 + b"{}\n" + b"\n" * 100_000))
    (chunk,) = cut(file, spool, ChunkSize(1_000))
    assert read([chunk]) == [(100_001, b"{}")]


@pytest.mark.parametrize("name", ["log.json", "log.jsonl"])
def test_a_record_nested_too_deeply_is_one_record(tmp_path: Path, spool: Spool, name: str) -> None:
    deep = b'{"a":' + b"[" * 100_000
    assert read(cut(source(tmp_path / name, deep + b"\n{}\n"), spool, ChunkSize())) == [(1, deep), (2, b"{}")]


def test_an_empty_file_has_no_chunks(tmp_path: Path, spool: Spool) -> None:
    assert list(cut(source(tmp_path / "empty.jsonl", b""), spool, ChunkSize())) == []


@pytest.mark.parametrize("row_group_size", [1, 7, 50])
@pytest.mark.parametrize("size", [ChunkSize(1), ChunkSize(10_000, 20), ChunkSize()])
def test_parquet_rows_come_with_their_numbers(
    tmp_path: Path, spool: Spool, size: ChunkSize, row_group_size: int
) -> None:
    rows = [json.loads(record) for record in RECORDS]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    file = SourceFile(0, str(path), path.stat().st_size, 0.0)
    assert read(cut(file, spool, size)) == list(enumerate(rows, start=1))


def test_nested_rows_of_several_row_groups_are_read(tmp_path: Path, spool: Spool) -> None:
    rows = [{"dialogue_id": f"d{index}", "turns": [{"text": "a"}, {"text": f"b{index}"}]} for index in range(20)]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=6)
    file = SourceFile(0, str(path), path.stat().st_size, 0.0)
    assert read(cut(file, spool, ChunkSize())) == list(enumerate(rows, start=1))


def test_a_damaged_row_group_costs_no_other(tmp_path: Path, spool: Spool) -> None:
    rows = [json.loads(record) for record in RECORDS]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    column = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 16] = b"\xff" * 16
    (chunk,) = cut(source(path, bytes(content)), spool, ChunkSize())
    assert read([chunk]) == [(1, RejectReason.CORRUPT_FILE), *enumerate(rows[10:], start=11)]


def test_rows_that_only_the_footer_has_are_one_reject(tmp_path: Path, spool: Spool) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"a": list(range(26))}), path, row_group_size=13, compression="none", store_schema=False)
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    # Numbers of 64 bits: of the values of the first group, of its rows, of the values of the second group, of its rows.
    counts = [at for at in range(footer, len(content)) if content[at : at + 2] == b"\x16\x1a"]
    content[counts[1] + 1] = 2 * 20
    found = read(cut(source(path, bytes(content)), spool, ChunkSize()))
    expected = [*range(13), RejectReason.CORRUPT_FILE, *range(13, 26)]
    assert [position for position, _ in found] == [*range(1, 15), *range(21, 34)]
    assert [each["a"] if isinstance(each, dict) else each for _, each in found] == expected


def test_nanoseconds_of_pandas_become_times_that_a_reader_takes(tmp_path: Path, spool: Spool) -> None:
    path = tmp_path / "log.parquet"
    turns = [{"text": "hi", "started_at": pd.Timestamp("2024-01-02T03:04:05.000000006", tz="UTC")}]
    frame = pd.DataFrame({"dialogue_id": ["a"], "turns": [turns]})
    pq.write_table(pa.Table.from_pandas(frame), path)
    ((_, row),) = read(cut(SourceFile(0, str(path), 1, 0.0), spool, ChunkSize()))
    assert isinstance(row, dict)
    assert type(row["turns"][0]["started_at"]).__name__ == "datetime"


def test_a_truncated_parquet_file_is_one_reject(tmp_path: Path, spool: Spool) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"a": list(range(1_000))}), path)
    file = source(path, path.read_bytes()[:-100])
    assert read(cut(file, spool, ChunkSize())) == [(0, RejectReason.TRUNCATED_FILE)]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pa.array([b"\xff"]).view(pa.string()), RejectReason.INVALID_UTF8),
        (pa.array([2**52], pa.timestamp("s")), RejectReason.INVALID_VALUE),
        (pa.array([-(2**62)], pa.timestamp("us")), RejectReason.INVALID_VALUE),
        (pa.array([0], pa.timestamp("us", tz="Nowhere/At_all")), RejectReason.INVALID_VALUE),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), RejectReason.INVALID_VALUE),
    ],
)
def test_a_row_that_has_no_value_in_python_costs_no_other(
    tmp_path: Path, spool: Spool, values: pa.Array, reason: RejectReason
) -> None:
    column = pa.concat_arrays([pa.nulls(3, values.type), values, pa.nulls(2, values.type)])
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"id": list(range(6)), "bad": column}), path, store_schema=True)
    found = read(cut(SourceFile(0, str(path), path.stat().st_size, 0.0), spool, ChunkSize()))
    assert [(position, record) for position, record in found if not isinstance(record, dict)] == [(4, reason)]
    assert [position for position, _ in found] == [1, 2, 3, 4, 5, 6]


def test_a_text_that_a_parquet_file_has_once_and_names_a_million_times_is_not_expanded(
    tmp_path: Path, spool: Spool
) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 1_000_000]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 1, 1_000_000], pa.int32()), text)
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"id": ["small", "empty", "bomb"], "texts": lists}), path)
    (one, two, three) = read(cut(SourceFile(0, str(path), path.stat().st_size, 0.0), spool, ChunkSize()))
    assert (len(str(one[1])) > 1_000_000, two[1]) == (True, {"id": "empty", "texts": []})
    assert three == (3, RejectReason.RECORD_TOO_LARGE)


def test_rows_that_are_read_together_expand_to_no_more_than_the_limit(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "RECORD_LIMIT", 5_000)
    monkeypatch.setattr(chunks, "EXPANDED_LIMIT", 20_500)
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"text": ["x" * 1_000] * 50}), path)
    found = read(cut(SourceFile(0, str(path), path.stat().st_size, 0.0), spool, ChunkSize()))
    assert [position for position, record in found if isinstance(record, dict)] == list(range(1, 21))
    assert {record for _, record in found[20:]} == {RejectReason.RECORD_TOO_LARGE}
    assert len(found) == 50


def test_a_row_group_of_millions_of_repeated_numbers_is_one_reject(tmp_path: Path, spool: Spool) -> None:
    numbers = pa.ListArray.from_arrays(pa.array([0, 10_000_000], pa.int32()), pa.array(np.zeros(10_000_000, np.int8)))
    path = tmp_path / "log.parquet"
    with pq.ParquetWriter(path, pa.schema([("numbers", numbers.type)])) as writer:
        writer.write_table(pa.table({"numbers": pa.array([[1]] * 2, numbers.type)}))
        writer.write_table(pa.table({"numbers": numbers}))
        writer.write_table(pa.table({"numbers": pa.array([[3]], numbers.type)}))
    found = read(cut(SourceFile(0, str(path), path.stat().st_size, 0.0), spool, ChunkSize()))
    assert found == [
        (1, {"numbers": [1]}),
        (2, {"numbers": [1]}),
        (3, RejectReason.RECORD_TOO_LARGE),
        (4, {"numbers": [3]}),
    ]


@pytest.mark.parametrize("limit", [1, 7, 50, 60])
def test_a_limit_takes_the_first_records(tmp_path: Path, spool: Spool, limit: int) -> None:
    file = source(tmp_path / "log.gz", gzip.compress(b"\n".join(RECORDS)))
    limited = list(first_records(cut(file, spool, ChunkSize(300)), limit))
    assert read(limited) == list(enumerate(RECORDS, start=1))[:limit]


def test_shares_of_the_chunks_add_up_to_the_file(tmp_path: Path, spool: Spool) -> None:
    for pack in (bytes, gzip.compress):
        file = source(tmp_path / "log", pack(b"\n".join(RECORDS)))
        assert sum(chunk.source_bytes for chunk in cut(file, spool, ChunkSize(300))) == file.size


def test_finished_chunks_are_not_spooled_again(tmp_path: Path) -> None:
    file = source(tmp_path / "log.gz", gzip.compress(b"\n".join(RECORDS)))
    folder = tmp_path / "spool"
    finished = Spool(str(folder), str(tmp_path / "tmp"), lambda chunk_id: chunk_id.endswith("00000"))
    cut_chunks = list(cut(file, finished, ChunkSize(300)))
    assert {path.name for path in folder.iterdir()} == {chunk.id for chunk in cut_chunks[1:]}
