"""`faultline label` on Dataflow, without Dataflow.

The job is submitted by Beam's DataflowRunner to a service on loopback that stands in for it: it keeps the request, and
does the job by running the staged pipeline on FnApiRunner. Files lie in a storage emulator.
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from gcp_storage_emulator.server import create_server
from google.cloud import storage
from google.cloud.dataflow_v1beta3 import JobType

from pipelines import graph, settings
from pipelines.cli import main
from schemas.labels import TABLES

DOCKER = Path(__file__).parents[2] / "docker"
PACKAGES = ["schemas", "encoders", "labelers", "pipelines"]
IMAGE = "europe-docker.pkg.dev/project/images/faultline:1"


@pytest.fixture(scope="module")
def store() -> Iterator[storage.Client]:
    """A storage emulator, to which all clients of this process go."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        # There are no credentials, and nobody is asked for them.
        patch.setenv("NO_GCE_CHECK", "true")
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
        client = storage.Client.create_anonymous_client()
        client.project = "project"
        for bucket in ("logs", "labels", "staging"):
            client.create_bucket(bucket)
        yield client
    server.stop()


class Dataflow(ThreadingHTTPServer):
    """Takes a job as `projects.locations.jobs.create` of the Dataflow API does, and does it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.jobs: list[dict[str, Any]] = []
        self.done: Future[Any] | None = None
        self.pool = ThreadPoolExecutor(1)

    @property
    def endpoint(self) -> str:
        return f"http://localhost:{self.server_port}"

    def work(self, job: dict[str, Any]) -> None:
        staged = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        with FileSystems.open(staged) as stream:
            pipeline = beam_runner_api_pb2.Pipeline.FromString(stream.read())
        for environment in pipeline.components.environments.values():
            # Where a container would be started of the image.
            assert environment.urn == common_urns.environments.DOCKER.urn
            environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


class _Requests(BaseHTTPRequestHandler):
    server: Dataflow

    def do_POST(self) -> None:
        assert re.fullmatch(r"/v1b3/projects/project/locations/europe-west1/jobs(\?.*)?", self.path), self.path
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.jobs.append(job)
        self.server.done = self.server.pool.submit(self.server.work, job)
        self._answer({"id": "job-1", "name": job["name"], "currentState": "JOB_STATE_PENDING"})

    def do_GET(self) -> None:
        if "/messages" in self.path:
            self._answer({})
            return
        done = self.server.done
        assert done is not None
        state = "RUNNING" if not done.done() else "FAILED" if done.exception() else "DONE"
        self._answer({"id": "job-1", "currentState": f"JOB_STATE_{state}"})

    def _answer(self, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def dataflow() -> Iterator[Dataflow]:
    service = Dataflow()
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield service
    service.shutdown()
    thread.join()
    service.pool.shutdown()


def google(*more: str) -> list[str]:
    options = {"project": "project", "region": "europe-west1", "temp_location": "gs://staging/temp"}
    options |= {"sdk_container_image": IMAGE}
    return ["--runner=DataflowRunner", "--no_auth", *(f"--{name}={value}" for name, value in options.items()), *more]


def files(client: storage.Client, prefix: str) -> dict[str, str]:
    blobs = client.list_blobs("labels", prefix=prefix)
    found = {blob.name.removeprefix(prefix): hashlib.sha256(blob.download_as_bytes()).hexdigest() for blob in blobs}
    return {name: digest for name, digest in found.items() if name.split("/")[0] in TABLES}


@pytest.fixture(scope="module")
def command(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, store: storage.Client
) -> tuple[list[str], dict[str, str]]:
    """The options of a run less its output and its engine, and the files that it gives on this machine."""
    records = ({"dialogue_id": f"d{index}", "turns": [{"text": "play jazz"}, {"text": "stop"}]} for index in range(60))
    text = "".join(json.dumps(record) + "\n" for record in records)
    store.bucket("logs").blob("2026-03-01.jsonl").upload_from_string(text)
    tracking = f"sqlite:///{tmp_path_factory.mktemp('dataflow')}/mlflow.db"
    options = {"input": "gs://logs/{date}.jsonl", "date": "2026-03-01", "model": str(tiny_model_dir)}
    options |= {"mlflow-tracking-uri": tracking, "chunk-bytes": "2000"}
    command = [f"--{name}={value}" for name, value in options.items()]
    assert main(["label", *command, "--output=gs://labels/local", "--no-progress"]) == 0
    return command, files(store, "local/")


@pytest.mark.slow
def test_a_job_is_staged_submitted_done_and_published(
    command: tuple[list[str], dict[str, str]], store: storage.Client, dataflow: Dataflow
) -> None:
    options, expected = command
    workers = ["--machine_type=n2-standard-4", "--max_num_workers=20", "--job_name=faultline-2026-03-01"]
    engine = google(f"--dataflow_endpoint={dataflow.endpoint}", *workers)
    assert main(["label", *options, "--output=gs://labels/dataflow", "--no-progress", *engine]) == 0
    [job] = dataflow.jobs
    assert (job["name"], job["type"]) == ("faultline-2026-03-01", JobType.JOB_TYPE_BATCH.value)
    [pool] = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 20
    assert [each["containerImage"] for each in pool["sdkHarnessContainerImages"]] == [IMAGE]
    assert len(expected) > 4
    assert files(store, "dataflow/") == expected


@pytest.mark.slow
def test_a_job_of_the_template_is_published_by_the_same_command(
    command: tuple[list[str], dict[str, str]],
    store: storage.Client,
    dataflow: Dataflow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, expected = command
    options = [*options, "--output=gs://labels/template"]
    template = google("--template_location=gs://staging/job_object")
    monkeypatch.setattr(sys, "argv", ["launch.py", *options, *template])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(DOCKER / "launch.py"), run_name="__main__")
    assert ended.value.code == 0
    assert files(store, "template/") == {}
    dataflow.work(json.loads(store.bucket("staging").blob("job_object").download_as_bytes()))
    # Everything is done: what is left finds its results, and reads the log no more.
    monkeypatch.setattr(graph, "cut", None)
    assert main(["label", *options, "--no-progress"]) == 0
    assert files(store, "template/") == expected


def test_the_parameters_of_the_template_are_options_with_values_that_they_take() -> None:
    parameters = json.loads((DOCKER / "metadata.json").read_text())["parameters"]
    examples = {
        "input": "gs://logs/{date}/*.gz",
        "input-format": "sgd",
        "output": "gs://labels/out",
        "date": "yesterday",
        "model": "builtin",
        "mlflow-tracking-uri": "https://mlflow.example.org",
        "partition-by": "date",
    }
    assert [each["name"] for each in parameters] == list(examples)
    for parameter in parameters:
        assert all(re.fullmatch(regex, examples[parameter["name"]]) for regex in parameter.get("regexes", []))
    asked, _ = settings.parse([f"--{name}={value}" for name, value in examples.items()])
    assert (asked.input_format, asked.by_date) == ("sgd", True)
    needed = [f"--{each['name']}={examples[each['name']]}" for each in parameters if not each.get("isOptional")]
    settings.parse([*needed, "--date=2026-03-01"])


def test_the_image_has_what_it_copies_and_the_versions_that_are_required() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    copied = [words.split() for words in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, flags=re.MULTILINE)]
    for *sources, _ in copied:
        assert all((DOCKER.parent / source).exists() for source in sources)
    assert set(PACKAGES) <= {source for *sources, _ in copied for source in sources}
    [(python, beam)] = re.findall(r"^FROM apache/beam_python(\S+)_sdk:(\S+)$", dockerfile, flags=re.MULTILINE)
    assert f"\napache-beam=={beam}\n" in (DOCKER.parent / "constraints.txt").read_text()
    assert f"python{python.replace('.', '')}-template-launcher-base" in dockerfile
    [launch] = re.findall(r"^ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/faultline/(.*)$", dockerfile, flags=re.MULTILINE)
    assert f"COPY docker/{launch} ./" in dockerfile
