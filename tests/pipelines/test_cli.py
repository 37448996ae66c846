"""The command `faultline` itself."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import jsonschema
import pytest

from pipelines.cli import jobs, main
from schemas.labels import TABLES


def test_help_names_every_job_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in jobs())
    code = "import sys; from pipelines.cli import main; main(['--help']); sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("job", jobs())
def test_a_job_is_also_a_module_that_python_runs(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _ = jobs()[job]
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"usage: faultline {job}")


def test_an_unknown_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labl"]) == 2
    assert capsys.readouterr().err.startswith("There is no faultline labl: choose one of ")


def test_no_command_shows_the_help_and_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "label" in capsys.readouterr().out


@pytest.mark.parametrize("log", ["jsonl", "turns"])
def test_schema_prints_a_json_schema_that_validates(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--log", log]) == 0
    schema = json.loads(capsys.readouterr().out)
    turn = {"text": "hi", "started_at": "2024-05-01T12:00:00Z"}
    good = {"dialogue_id": "a", "turns": [turn]} if log == "jsonl" else {"session_id": "a", **turn}
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"dialogue_id": 1, "session_id": 1}, schema)


@pytest.mark.parametrize("table", list(TABLES))
def test_schema_prints_the_columns_of_a_table(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--table", table]) == 0
    said = "".join(character for character in capsys.readouterr().out if character.isalnum() or character in "_…\n")
    assert all(name[:8] in said for name in TABLES[table].names)
