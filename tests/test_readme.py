"""What README.md says is so: its options, formats, columns and reasons are the code's, and its snippets run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import duckdb
import pytest

from encoders.dialogue import WINDOW
from encoders.text import LIMITS, Segment
from labelers import goal_segmentation, rephrase
from labelers.labelling_functions import FUNCTIONS
from pipelines import (
    drift,
    evaluate,
    export,
    import_annotations,
    label,
    pretrain,
    query,
    report,
    settings,
    simulate,
    track,
    train,
)
from pipelines.chunks import RECORD_LIMIT
from pipelines.cli import jobs, main
from pipelines.demo import QUERY
from pipelines.labelled import VIEWS
from pipelines.sessions import SESSION_LIMIT
from schemas.formats import DialogueFormat, formats, get_format
from schemas.labels import LABEL_SCHEMA_VERSION, TABLES, Label, Signal
from schemas.log import ID_LIMIT, OBJECT_LIMIT, TURN_LIMIT, FailurePoint
from schemas.rejects import RAW_LIMIT, RejectReason, Stage

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """What stands under a heading of the third level."""
    return re.split(r"^#", README.partition(f"\n### `{heading}`")[2], maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str, first: str) -> dict[str, list[str]]:
    """The rows of the table whose first column is headed `first`: its other cells by its first, less backquotes."""
    rows = text.partition(f"\n\n| {first} |")[2].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return {name.strip("`"): rest for name, *rest in cells}


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(snippets("bash")).replace("\\\n", " ").splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line)) and words[0].endswith("faultline")]


@pytest.mark.parametrize("job", jobs())
def test_the_options_of_a_job_and_their_defaults_are_those_of_its_help(
    job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        main([job, "--help"])
    usage, _, options = capsys.readouterr().out.partition("\noptions:\n")
    required = re.sub(r"\[[^]]*\]", "", usage)
    helped = {}
    for entry in re.split(r"\n  (?=-)", options.partition("\n\n")[0])[1:]:
        option = entry.split()[0]
        default = re.search(r"default: ([^()]+)\)?$", " ".join(entry.split()))
        takes_a_value = re.match(r"--[\w-]+ \S", entry)
        without = "none" if takes_a_value else "off"
        helped[option] = "required" if f"{option} " in required else default[1] if default else without
    written = {option.split()[0]: cells[-1] for option, cells in table(section(f"faultline {job}"), "option").items()}
    assert written == helped


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_has_options_that_exist(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULTLINE_PSEUDONYM_KEY", "0" * 32)
    parsers = {
        "label": settings.parse,
        "pretrain": pretrain.parse,
        "train": train.parse,
        "evaluate": evaluate.parse,
        "drift": drift.parse,
        "query": query.parse,
        "report": report.parse,
        "export": export.parse,
        "import": import_annotations.parse,
        "simulate": simulate.parse,
        "track": track.parse,
    }
    parsers[command[0]](command[1:])


def test_the_formats_are_all_formats_with_their_sources() -> None:
    written = table(README, "format")
    assert list(written) == list(formats())
    assert {name: cells[-1] for name, cells in written.items()} == {
        name: each.source for name, each in formats().items()
    }


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_a_table_are_those_of_its_schema_with_the_meaning_of_null(name: str) -> None:
    written = {column: cells[-1] for column, cells in table(section(name), "column").items()}
    assert written == {
        field.name: field.metadata[b"null"].decode() if field.nullable else "never" for field in TABLES[name]
    }
    assert list(written) == TABLES[name].names


def test_the_columns_of_a_query_are_those_of_its_tables() -> None:
    written = {
        (view, column)
        for columns, cells in table(README, "column of the log").items()
        for column in columns.split("`, `")
        for view in cells[0].split(", ")
    }
    assert written == {(view, name) for view, schema in VIEWS.items() for name in schema.names[len(TABLES[view]) :]}


def test_the_closed_lists_are_those_of_the_schemas() -> None:
    assert list(table(README, "reason")) == list(RejectReason)
    assert list(table(README, "failure point")) == list(FailurePoint)
    assert re.findall(r"`(\w+)`", "".join(f"`{name}`" for name in table(README, "signal"))) == list(Signal)
    columns = table(section("turns"), "column")
    assert re.findall(r"`(\w+)`", columns["abstained"][1]) == list(Label)
    assert re.findall(r"`(\w+)`", columns["failure_point_probabilities"][1]) == list(FailurePoint)
    assert re.findall(r"`(\w+)`", table(section("rejected"), "column")["stage"][1]) == list(Stage)


def test_the_labelling_functions_are_all_there_are_with_their_votes() -> None:
    written = table(README, "labelling function")
    assert {name: cells[0] for name, cells in written.items()} == {each.name: each.vote for each in FUNCTIONS}


@pytest.mark.parametrize(
    "said",
    [
        f"schema, version {LABEL_SCHEMA_VERSION}",
        f"cut at {RAW_LIMIT:,} characters",
        f"a record is over {RECORD_LIMIT >> 20} MiB or {OBJECT_LIMIT:,} JSON objects,",
        f"a dialogue has over {TURN_LIMIT:,} turns",
        f"an id of over {ID_LIMIT:,} characters",
        f"a session of single turns over {SESSION_LIMIT >> 20} MiB",
        f"reads {LIMITS[Segment.USER]} word pieces",
        f"window of {WINDOW}",
        f"resumed at most {goal_segmentation.BACK} turns",
        f"looked for at most {rephrase.BACK} turns",
    ],
)
def test_a_limit_is_that_of_the_code(said: str) -> None:
    assert said in " ".join(README.split())


def test_the_torch_of_the_gpu_section_is_the_one_that_is_required() -> None:
    [required] = re.findall(r'"(torch==.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"pip install {required} " in README


def test_the_example_logs_can_be_read() -> None:
    jsonl = get_format("jsonl")
    assert isinstance(jsonl, DialogueFormat)
    examples = snippets("json")
    assert examples
    for example in examples:
        jsonl.parse(json.dumps(json.loads(example)).encode())


def test_the_first_query_is_the_one_that_make_demo_shows() -> None:
    assert snippets("sql")[0].strip() == QUERY.format(output="demo-output")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A folder that looks as a clone does after `make demo` and an evaluation, with a model of the smallest size."""
    folder = tmp_path_factory.mktemp("clone")
    logs = str(folder / "demo-logs" / "simulated.jsonl.gz")
    simulate.run(["--dialogues", "40", "--output", logs])
    output = ["--output", str(folder / "demo-output"), "--no-progress"]
    label.run(["--input", logs, "--model", str(tiny_model_dir), *output])
    scored = ["--part", "all", "--resamples", "20", "--output", str(folder / "evaluation")]
    evaluate.run(["--input", logs, "--model", str(tiny_model_dir), *scored])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("query", snippets("sql"))
def test_a_query_runs(query: str, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    assert duckdb.sql(query).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("code", snippets("python"))
def test_a_snippet_runs(
    code: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    exec(code, {})
    assert capsys.readouterr().out
