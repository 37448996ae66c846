"""What of a dialogue of the satisfaction data becomes what."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from benchmarks.uss import dialogues, main
from pipelines.logs import is_annotated, read_logs
from schemas.log import Dialogue
from schemas.rejects import RecordError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
FILE = """
SYSTEM\tGood morning.\tGREET\t
USER\tA table for two.\tINFORM\t3,3
SYSTEM\tWhere?\tREQUEST\t
SYSTEM\tAnd when?\tREQUEST\t
USER\tIn Leeds,\tINFORM\t4,3
USER\tno, York.\tINFORM\t2,3
SYSTEM\tI booked Leeds.\tINFORM\t
USER\tI said York!\tINFORM\t1,2
USER\tOVERALL\t\t1,2

USER\tBye.\tBYE\t3,3,3
USER\tOVERALL\t\t3,4,3\tan explanation
"""


@pytest.fixture
def found() -> list[Dialogue]:
    return list(dialogues(FILE.splitlines(), "Tables"))


def test_a_block_is_a_dialogue(found: list[Dialogue]) -> None:
    assert [each.dialogue_id for each in found] == ["Tables-1", "Tables-2"]
    assert found[0].opening == "Good morning."
    assert [(turn.text, turn.response.text if turn.response else None) for turn in found[0].turns] == [
        ("A table for two.", "Where? And when?"),
        ("In Leeds, no, York.", "I booked Leeds."),
        ("I said York!", None),
    ]


def test_a_rating_is_of_the_turn_that_the_user_reacts_to(found: list[Dialogue]) -> None:
    ratings = [turn.annotation.ratings if turn.annotation else None for turn in found[0].turns]
    assert ratings == [[3, 3], [1, 2], None]


def test_the_last_line_has_the_ratings_of_the_dialogue(found: list[Dialogue]) -> None:
    assert [each.annotation.ratings for each in found if each.annotation] == [[1, 2], [3, 4, 3]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ROBOT\tHello.\tGREET\t", "line 2: no role"),
        ("USER\tHello.", "line 2: no role"),
        ("USER\tHello.\tGREET\t3,", "line 2: the ratings '3,'"),
        ("USER\tHello.\tGREET\t", "line 2: the ratings ''"),
        ("SYSTEM\tHello.\tGREET\t3", "line 2: the ratings '3'"),
        ("USER\tHello.\tGREET\t3,3", "line 2: 2 ratings in a dialogue of 1"),
        ("SYSTEM\tHello.\tGREET\t", "line 3: the dialogue that ends here: the dialogue has no turns"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str) -> None:
    with pytest.raises(RecordError) as error:
        list(dialogues(["", line, "USER\tOVERALL\t\t4"], "Bad"))
    assert error.value.message.startswith(message)


def test_a_dialogue_that_breaks_off_or_runs_into_the_next_is_named() -> None:
    for lines in (["USER\tHello.\tGREET\t3,3"], ["USER\tOVERALL\t\t3", "USER\tOVERALL\t\t3"]):
        with pytest.raises(RecordError, match=f"line {len(lines)}: the dialogue that ends here has not one line"):
            list(dialogues(lines, "Bad"))


@pytest.mark.parametrize(("name", "count"), [("SGD", 1_000), ("CCPE", 500)])
def test_the_real_files_are_read(name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SHARED / "uss" / f"{name}.txt.gz"
    if not source.exists():
        pytest.skip("the data set uss is not in ../shared/data")
    output = tmp_path / "uss.jsonl.gz"
    monkeypatch.setattr(sys, "argv", ["uss.py", "--input", str(source), "--output", str(output)])
    main()
    logs = read_logs([str(output)], "jsonl")
    assert (len(logs.dialogues), logs.rejected.total()) == (count, 0)
    assert not any(map(is_annotated, logs.dialogues)), "ratings teach no label"
    blocks = gzip.decompress(source.read_bytes()).decode().strip().split("\n\n")
    overall = [[float(each) for each in block.rpartition("\t")[2].split(",")] for block in blocks]
    assert [each.annotation.ratings for each in logs.dialogues if each.annotation] == overall


def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"USER\thi\tINFORM\t3\n")[:-9])
    (tmp_path / "blocks.txt").write_text("USER\thi\n")
    for name, said in (
        ("none", "cannot be read"),
        ("cut.gz", "a damaged gzip file"),
        ("blocks.txt", "line 1: no role"),
    ):
        source = str(tmp_path / name)
        monkeypatch.setattr(sys, "argv", ["uss.py", "--input", source, "--output", str(tmp_path / "out.jsonl.gz")])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err
