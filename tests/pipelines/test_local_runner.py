"""The default runner with processes of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.options import OptionParser

COMMAND = ["--direct_num_workers=2", "--direct_running_mode=multi_processing", "--s3_endpoint_url=http://127.0.0.1:9"]


@pytest.mark.slow
def test_worker_processes_know_the_options_and_are_as_quiet_as_the_launcher(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def tell(file: str) -> None:
        import logging

        from apache_beam.io.filesystems import FileSystems

        told: Any = FileSystems._pipeline_options
        Path(file).write_text(json.dumps([told.get_all_options()["s3_endpoint_url"], logging.getLogger().level]))

    _, options = OptionParser("a job", "").parse_with_beam(COMMAND)
    caplog.set_level("CRITICAL", "apache_beam")
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create([str(tmp_path / "told")]) | beam.Map(tell)
    assert json.loads((tmp_path / "told").read_text()) == ["http://127.0.0.1:9", 50]
    assert "INFO:apache_beam" not in capfd.readouterr().err
