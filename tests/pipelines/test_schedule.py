"""A run for a date, and what starts it every night: the examples for cron and for Airflow."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from pipelines import report, settings
from pipelines.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
YESTERDAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def write_log(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = ({"dialogue_id": name, "turns": [{"text": "play some jazz"}]} for name in names)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def dialogues(output: Path) -> list[str]:
    found = duckdb.sql(f"SELECT dialogue_id FROM '{output}/dialogues/**/*.parquet' ORDER BY ALL").fetchall()
    return [name for (name,) in found]


def test_a_run_for_a_date_labels_that_day_and_is_safe_to_repeat(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def label(date: str) -> None:
        logs, output = f"{tmp_path}/{{date:%Y/%m/%d}}.jsonl", f"{tmp_path}/out"
        model = ["--model", str(tiny_model_dir), "--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
        command = ["label", "--input", logs, "--output", output, "--date", date, *model, "--no-progress"]
        assert main(command) == 0

    write_log(tmp_path / "2026/03/01.jsonl", "a", "b")
    write_log(tmp_path / "2026/03/02.jsonl", "c")
    label("2026-03-01")
    assert dialogues(tmp_path / "out") == ["a", "b"]
    label("2026-03-02")
    label("2026-03-01")
    assert "nothing was changed" in " ".join(capsys.readouterr().out.split())
    # One came late.
    write_log(tmp_path / "2026/03/01.jsonl", "a", "b", "late")
    label("2026-03-01")
    assert dialogues(tmp_path / "out") == ["a", "b", "c", "late"]


def test_the_date_is_put_in_place_in_input_and_output() -> None:
    asked, _ = settings.parse(
        ["--input", "/logs/{date:%Y/%m}/{date}*", "--output", "/out/{date}", "--date", "2026-03-01"]
    )
    assert (asked.inputs, asked.output) == (("/logs/2026/03/2026-03-01*",), "/out/2026-03-01")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input", "{date}/*", "--output", "out"], "{date}/* has a place for a date: say which with --date"),
        (["--input", "*", "--output", "out/{date}"], "out/{date} has a place for a date: say which with --date"),
        (["--input", "*", "--output", "out", "--date", "2026-03-01"], "--input * is the same for every --date: put"),
        (["--input", "{date}", "--output", "out", "--date", "1 March"], "'1 March' is neither a date in the form"),
    ],
)
def test_a_mistake_with_the_date_is_one_sentence_and_exit_code_2(
    options: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", *options]) == 2
    complaint = capfd.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_the_lines_of_the_crontab_label_the_last_two_days(tmp_path: Path) -> None:
    crontab = (EXAMPLES / "faultline.crontab").read_text()
    # crontab(5): five fields, then the command, in which a bare % would end the line.
    lines = re.findall(r"^[\d*]+(?: [\d*]+){4} (.*)$", crontab, flags=re.MULTILINE)
    assert not any(re.search(r"(?<!\\)%", line) for line in lines)

    def words(line: str) -> list[str]:
        """What faultline would be given by the shell."""
        noted = tmp_path / "words"
        shell = f"faultline() {{ printf '%s\\n' \"$@\" >'{noted}'; }}; " + line.replace(r"\%", "%")
        subprocess.run(["/bin/sh", "-c", shell], env={**os.environ, "LOGS": "/logs", "LABELS": "/labels"}, check=True)
        return noted.read_text().splitlines()

    *days, (command, *options) = map(words, lines)
    assert [settings.parse(more)[0].inputs for _, *more in days] == [
        (f"/logs/{YESTERDAY - dt.timedelta(days=before)}/*.jsonl.gz",) for before in (0, 1)
    ]
    assert [command for command, *_ in days] == ["label", "label"]
    assert (command, report.parse(options).labels) == ("report", "/labels")


AIRFLOW = shutil.which("airflow")
PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.timezone import datetime
bag = DagBag(sys.argv[1])
[dag] = bag.dags.values()
interval = dag.timetable.infer_manual_data_interval(run_after=datetime(2026, 3, 2, 12))
for task in dag.tasks:
    task.render_template_fields({"data_interval_start": interval.start})
commands = {task.task_id: [task.bash_command, sorted(task.downstream_task_ids)] for task in dag.tasks}
print(json.dumps({"errors": bag.import_errors, "commands": commands}))
"""


@pytest.mark.skipif(AIRFLOW is None, reason="airflow is not on the PATH (it may be of another environment)")
def test_airflow_reads_the_dag_and_its_run_is_for_the_day_before(tmp_path: Path) -> None:
    assert AIRFLOW is not None
    python = Path(AIRFLOW).parent / "python"
    done = subprocess.run(
        [python, "-c", PARSE, EXAMPLES / "airflow_dag.py"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    (label, after_label), (page, after_page) = found["commands"]["label"], found["commands"]["report"]
    assert (after_label, after_page) == (["report"], [])
    asked, _ = settings.parse(shlex.split(label)[2:])
    assert asked.inputs == ("/var/log/assistant/2026-03-01/*.jsonl.gz",)
    assert report.parse(shlex.split(page)[2:]).labels == asked.output
