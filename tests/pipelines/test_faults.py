"""`faultline label` when something around it breaks: disks, inputs, workers, memory, and what a crash has left."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
import torch

from labelers.model import Model
from pipelines import graph, label, publish, storage
from pipelines.cli import main
from schemas.labels import TABLES, DialogueLabels
from schemas.log import Dialogue


def write_log(path: Path, count: int, text: str = "play some jazz") -> None:
    turns = [{"text": text}, {"text": "no, i said jazz"}, {"text": "stop"}]
    path.write_text("".join(json.dumps({"dialogue_id": f"d{index}", "turns": turns}) + "\n" for index in range(count)))


def parts(output: Path) -> dict[str, bytes]:
    """The files of the tables."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for table in TABLES
        for path in output.glob(f"{table}/**/*.parquet")
    }


def dialogues(output: Path) -> int:
    return duckdb.sql(f"SELECT count(DISTINCT dialogue_id) FROM '{output}/dialogues/**/*.parquet'").fetchall()[0][0]


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def command(tmp_path: Path, tiny_model_dir: Path, tracking: str) -> Callable[..., list[str]]:
    def command(output: Path, *more: str) -> list[str]:
        options = ["--model", str(tiny_model_dir), "--mlflow-tracking-uri", tracking, "--no-progress"]
        return ["label", "--input", str(tmp_path / "log.jsonl"), "--output", str(output), *options, *more]

    return command


def failed(said: str) -> str:
    """What a failed run says, which must be one line."""
    assert "Traceback" not in said
    assert said.count("\n") == 1
    return said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_fails_the_run_and_the_same_command_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path, command: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    output = small_disk / "out"
    write_log(tmp_path / "log.jsonl", 10)
    assert main(command(output)) == 0
    write_log(tmp_path / "log.jsonl", 400)
    capfd.readouterr()
    assert main(command(output, "--chunk-bytes", "4000")) == 1
    said = failed(capfd.readouterr().err)
    assert "No space left on device" in said
    assert "the same command goes on there" in said
    assert dialogues(output) == 10
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert main(command(output, "--chunk-bytes", "4000")) == 0
    assert "going on after the" in capfd.readouterr().err
    assert dialogues(output) == 400


def test_an_output_that_becomes_read_only_fails_the_run_and_keeps_the_former_rows(
    tmp_path: Path, small_disk: Path, command: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = small_disk / "out"
    write_log(tmp_path / "log.jsonl", 10)
    assert main(command(output)) == 0
    write_log(tmp_path / "log.jsonl", 20)
    real = label.validate_parts

    def then_read_only(parts: Any) -> Any:
        report = real(parts)
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        return report

    capfd.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(label, "validate_parts", then_read_only)
        # A disk on which a file is open to be written, as that of the lock is, cannot be made read-only from outside.
        patched.setattr(publish, "only_run", lambda *_: nullcontext())
        assert main(command(output)) == 1
    assert "Read-only file system" in failed(capfd.readouterr().err)
    assert dialogues(output) == 10
    assert main(command(output)) == 2
    assert "Cannot write to --output" in failed(capfd.readouterr().err)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert main(command(output)) == 0
    assert dialogues(output) == 20


def delete(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"jazz", b"rock"))


def extend(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"dialogue_id": "late", "turns": [{"text": "stop"}]}\n')


@pytest.fixture
def meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Callable[[Path], None]], None]:
    """Changes the input just before a function of the job is called for the first time."""

    def change_before(module: Any, name: str, change: Callable[[Path], None]) -> None:
        real = getattr(module, name)
        to_do = [change]

        def changed(*arguments: Any) -> Any:
            if to_do:
                to_do.pop()(tmp_path / "log.jsonl")
            return real(*arguments)

        monkeypatch.setattr(module, name, changed)

    return change_before


@pytest.mark.parametrize(
    ("before", "change", "said"),
    [
        ((graph, "build"), delete, "log.jsonl has disappeared while it was labelled"),
        ((graph, "label_chunk"), delete, "No such file or directory"),
        ((graph, "label_chunk"), shorten, "log.jsonl has become shorter"),
        ((label, "exclude_repeated"), rewrite, "log.jsonl was changed while it was labelled"),
    ],
)
def test_an_input_that_is_lost_on_the_way_fails_the_run(
    tmp_path: Path,
    command: Any,
    capfd: pytest.CaptureFixture[str],
    meanwhile: Any,
    before: tuple[Any, str],
    change: Callable[[Path], None],
    said: str,
) -> None:
    write_log(tmp_path / "log.jsonl", 20)
    meanwhile(*before, change)
    assert main(command(tmp_path / "out")) == 1
    assert said in failed(capfd.readouterr().err)
    assert parts(tmp_path / "out") == {}


@pytest.mark.parametrize(("function", "said"), [("exists", "Cannot look into"), ("open_file", "Cannot read")])
def test_a_store_that_does_not_answer_for_a_moment_fails_the_run_and_the_same_command_goes_on(
    tmp_path: Path,
    command: Any,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    said: str,
) -> None:
    write_log(tmp_path / "plain", 20)
    (tmp_path / "log.jsonl").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))

    def unanswered(*_: Any) -> Any:
        raise storage.StoreError("503 Slow Down")

    def then_unanswered(*arguments: Any) -> Any:
        patched.setattr(storage, function, unanswered)
        return build(*arguments)

    build = graph.build
    with monkeypatch.context() as patched:
        patched.setattr(graph, "build", then_unanswered)
        assert main(command(tmp_path / "out")) == 1
    told = failed(capfd.readouterr().err)
    assert said in told
    assert "the same command goes on there" in told
    assert main(command(tmp_path / "out")) == 0
    assert dialogues(tmp_path / "out") == 20


def test_an_input_that_grows_is_labelled_and_then_labelled_anew(
    tmp_path: Path, command: Any, capfd: pytest.CaptureFixture[str], meanwhile: Any
) -> None:
    write_log(tmp_path / "log.jsonl", 20)
    meanwhile(graph, "label_chunk", extend)
    assert main(command(tmp_path / "out")) == 0
    assert "log.jsonl has grown while it was labelled" in capfd.readouterr().err
    assert dialogues(tmp_path / "out") == 20
    assert main(command(tmp_path / "out")) == 0
    assert dialogues(tmp_path / "out") == 21


def test_a_dialogue_for_which_there_is_no_memory_costs_no_other(
    tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Model.label

    def too_large(model: Model, dialogues: Sequence[Dialogue], ontology: Any = None) -> list[DialogueLabels]:
        if any(each.dialogue_id == "d7" for each in dialogues):
            torch.empty(2**50)
        return real(model, dialogues, ontology)

    monkeypatch.setattr(Model, "label", too_large)
    write_log(tmp_path / "log.jsonl", 20)
    assert main(command(tmp_path / "out")) == 0
    assert dialogues(tmp_path / "out") == 19
    rejected = duckdb.sql(f"SELECT position, reason FROM '{tmp_path}/out/rejected/**/*.parquet'").fetchall()
    assert rejected == [(8, "out_of_memory")]


def test_what_a_crash_has_left_damaged_is_done_again(
    tmp_path: Path, command: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log.jsonl", 60)
    size = ("--chunk-bytes", "1500")

    def crash(*_: Any) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(label, "validate_parts", crash)
        assert main(command(tmp_path / "out", *size)) == 1
    (staging,) = (tmp_path / "out").glob("_staging/*/*")
    results = sorted(staging.glob("results/*"))
    os.truncate(results[0], 100)
    os.truncate(staging / "ids" / f"{results[1].stem}.parquet", 0)
    next(staging.glob(f"tables/goals/*{results[2].stem}*")).write_bytes(b"")
    capfd.readouterr()
    assert main(command(tmp_path / "out", *size)) == 0
    said = capfd.readouterr().err
    assert "3 units of work of an interrupted run are damaged and are done again" in said
    assert "going on after the" in said
    assert main(command(tmp_path / "unbroken", *size)) == 0
    assert parts(tmp_path / "out") == parts(tmp_path / "unbroken")


def test_a_model_that_is_copied_by_half_is_a_mistake(
    tmp_path: Path, command: Any, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "log.jsonl", 1)
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert main(command(tmp_path / "out", "--model", str(model))) == 2
    assert "model.safetensors" in failed(capfd.readouterr().err)


@pytest.mark.slow
def test_a_worker_process_that_dies_fails_the_run_and_the_same_command_goes_on(
    tmp_path: Path, command: Any, forked: Any
) -> None:
    output = tmp_path / "out"
    write_log(tmp_path / "log.jsonl", 600)
    same = command(output, "--chunk-bytes", "4000")
    running = forked.start(*same, "--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
    running.until_found(output, "_staging/*/*/results/*.json")
    processes = psutil.Process(running.pid).children(recursive=True)
    next(
        each for each in processes if each.cmdline()[1:] == ["-m", "apache_beam.runners.worker.sdk_worker_main"]
    ).kill()
    code, said = running.ended(seconds=120)
    assert code == 1
    assert "The run failed: a worker process died" in said
    assert "the same command goes on there" in said
    assert forked(*same)[0] == 0
    assert dialogues(output) == 600


@pytest.mark.slow
def test_a_second_run_on_an_output_is_refused_for_the_same_input_and_works_for_another(
    tmp_path: Path, command: Any, forked: Any
) -> None:
    output = tmp_path / "out"
    write_log(tmp_path / "log.jsonl", 1_000)
    write_log(tmp_path / "other.jsonl", 10)
    first = forked.start(*command(output, "--chunk-bytes", "4000"))
    first.until_found(output, "_staging/*/*/results/*.json")
    code, said = forked(*command(output))
    assert code == 2
    assert said.startswith(f"Another run is labelling this input into {output}: wait until it has ended")
    other = [str(tmp_path / "other.jsonl") if each.endswith("log.jsonl") else each for each in command(output)]
    assert forked(*other)[0] == 0
    assert first.ended()[0] == 0
    assert [json.loads(path.read_text())["summary"]["dialogues"] for path in sorted(output.glob("runs/*"))] in (
        [10, 1_000],
        [1_000, 10],
    )
    assert duckdb.sql(f"SELECT count(*) FROM '{output}/dialogues/**/*.parquet'").fetchall() == [(1_010,)]


def test_a_limit_does_not_replace_the_rows_of_more_records(
    tmp_path: Path, command: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "log.jsonl", 10)
    assert main(command(tmp_path / "out", "--limit", "5")) == 0
    assert main(command(tmp_path / "out")) == 0
    capfd.readouterr()
    assert main(command(tmp_path / "out", "--limit", "5")) == 2
    assert "holds the labels of all records of this input, of which --limit 5 would leave only 5" in failed(
        capfd.readouterr().err
    )
    assert dialogues(tmp_path / "out") == 10
