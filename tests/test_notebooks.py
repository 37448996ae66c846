"""The notebooks run from start to end, and say what the jobs say."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from notebooks.execute import execute
from pipelines.report_page.numbers import WORST_INTENTS

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def read(name: str) -> NotebookNode:
    return nbformat.read(NOTEBOOKS / name, as_version=4)


def run(name: str, afterwards: str) -> None:
    """Runs a notebook, and then some code in the same kernel."""
    notebook = read(name)
    notebook.cells.append(nbformat.v4.new_code_cell(afterwards))
    execute(notebook)


def faultline(*arguments: str) -> str:
    command = Path(sys.executable).parent / "faultline"
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_as_it_ran(name: str) -> None:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.name for output in outputs if output.output_type == "stream"} <= {"stdout"}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_names_no_folder_of_the_machine_it_ran_on(name: str) -> None:
    text = (NOTEBOOKS / name).read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert not re.search(r"/(tmp|home|root|Users|work)/", text)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_says_that_its_log_is_synthetic(name: str) -> None:
    assert "**The log is synthetic" in read(name).cells[0].source


@pytest.mark.slow
def test_the_worst_intents_and_examples_are_those_of_the_query_and_of_the_page(tmp_path: Path) -> None:
    labels, page = tmp_path / "labels", tmp_path / "report.html"
    run(
        "query_the_labels.ipynb",
        "import json, shutil\n"
        f"shutil.copytree('labels', {str(labels)!r})\n"
        f"told = {{'worst': worst.values.tolist(), 'examples': examples.dialogue_id.tolist(), 'sql': EXAMPLES}}\n"
        f"Path({str(tmp_path / 'told.json')!r}).write_text(json.dumps(told))",
    )
    told = json.loads((tmp_path / "told.json").read_text())
    ask = ("query", "--labels", str(labels), "--no-logs", "--format", "csv")
    worst = [
        [intent, *map(int, numbers)] for intent, *numbers in csv.reader(faultline(*ask, WORST_INTENTS).splitlines()[1:])
    ]
    assert told["worst"] == worst[:3]
    examples = [row["dialogue_id"] for row in csv.DictReader(faultline(*ask, told["sql"]).splitlines())]
    assert told["examples"] == examples
    assert len(examples) == 10
    faultline("report", "--labels", str(labels), "--output", str(page), "--explain", "0")
    html = page.read_text(encoding="utf-8")
    table = html.partition('<section id="intents"')[2].partition("</table>")[0]
    cells = r'<tr><th scope="row"><bdi>(\w+)</bdi></th><td class="n">(\d+)</td><td class="n">(\d+)</td>'
    rows = re.findall(cells, table)
    assert [[intent, int(turns), int(failed)] for intent, turns, failed in rows[:3]] == [
        row[:3] for row in told["worst"]
    ]
    assert all(f'"id":"{dialogue}"' in html for dialogue in examples)


@pytest.mark.slow
def test_what_to_fix_is_ranked_by_what_it_wins(tmp_path: Path) -> None:
    fixes = tmp_path / "fixes.csv"
    run("find_what_to_fix.ipynb", f"fixes.assign(missed=len(missed), all=len(goals)).to_csv({str(fixes)!r})")
    rows = list(csv.DictReader(fixes.read_text().splitlines()))
    won = [float(row["won"]) for row in rows]
    assert won == sorted(won, reverse=True)
    assert sum(int(row["goals"]) for row in rows) <= int(rows[0]["missed"])
    for row in rows:
        assert float(row["low"]) <= float(row["won"]) <= float(row["high"])
        # Not every goal is reached where nothing fails for good.
        assert float(row["won"]) < int(row["goals"]) / int(row["all"])


@pytest.mark.slow
def test_the_retrained_model_is_better_at_failure_points_and_labels_from_the_registry(tmp_path: Path) -> None:
    run(
        "retrain_on_your_logs.ipynb",
        "told = {'scores': value.T.to_dict(), 'right': int(right), 'wrong': int(wrong)}\n"
        "told['by'] = sorted(set(new.model_uri))\n"
        f"Path({str(tmp_path / 'told.json')!r}).write_text(json.dumps(told))",
    )
    told = json.loads((tmp_path / "told.json").read_text())
    # Which turns are drawn at random follows from where the log lies, so the gain differs from folder to folder.
    for measure in ("failure point: accuracy", "defect: average precision"):
        assert told["scores"][measure]["after"] > told["scores"][measure]["before"]
    assert told["right"] > told["wrong"]
    assert told["by"] == ["models:/faultline@live"]
