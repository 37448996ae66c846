"""The job on S3, by Beam's own client, against a server on loopback that speaks its protocol."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from pipelines import publish
from pipelines.cli import main
from pipelines.label import run
from pipelines.labelled import Labelled

OUTPUT = "s3://logs/out"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    bucket = boto3.resource("s3").create_bucket(
        Bucket="logs", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    # Beam makes a client for each request, which takes much longer than the request: here it gets one again and again.
    client = boto3.client("s3")
    monkeypatch.setattr(boto3.session, "Session", lambda: SimpleNamespace(client=lambda **_: client))
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture
def command(bucket: Any, tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> list[str]:
    tracking = f"sqlite:///{tmp_path_factory.getbasetemp()}/s3.db"
    options = ["--model", str(tiny_model_dir), "--mlflow-tracking-uri", tracking, "--no-progress"]
    return ["--input", "s3://logs/in/*.gz", "--output", OUTPUT, *options]


def put(bucket: Any, key: str, names: str) -> None:
    records = [{"dialogue_id": name, "turns": [{"text": "stop"}]} for name in names]
    bucket.put_object(Key=key, Body=gzip.compress("\n".join(map(json.dumps, records)).encode()))


def keys(bucket: Any) -> set[str]:
    return {each.key for each in bucket.objects.all()}


def dialogues(bucket: Any, paths: list[str]) -> list[str]:
    contents = [bucket.Object(path).get()["Body"].read() for path in paths]
    return sorted(
        name for content in contents for name in pq.read_table(pa.BufferReader(content))["dialogue_id"].to_pylist()
    )


def globbed(bucket: Any) -> list[str]:
    return dialogues(bucket, [key for key in keys(bucket) if key.startswith("out/dialogues/")])


def named_by_the_manifests(bucket: Any) -> list[str]:
    manifests = [
        json.loads(bucket.Object(key).get()["Body"].read()) for key in keys(bucket) if key.startswith("out/runs/")
    ]
    return dialogues(
        bucket,
        [
            f"out/dialogues/{manifest['dataset']}/{part['path']}"
            for manifest in manifests
            for part in manifest["parts"]
            if part["table"] == "dialogues"
        ],
    )


@pytest.mark.slow
def test_input_output_and_staging_may_lie_on_s3(bucket: Any, command: list[str]) -> None:
    put(bucket, "in/1.gz", "abcb")
    put(bucket, "in/2.gz", "ad")
    summary = run(command)
    assert summary is not None
    assert (summary.dialogues, summary.rejected) == (4, {"duplicate_id": 2})
    assert globbed(bucket) == ["a", "b", "c", "d"]
    before = keys(bucket)
    assert run(command) == summary
    assert keys(bucket) == before

    put(bucket, "in/1.gz", "cb")
    bucket.Object("in/2.gz").delete()
    run(command)
    assert globbed(bucket) == named_by_the_manifests(bucket) == ["b", "c"]
    assert not [key for key in keys(bucket) if "_staging" in key]
    with Labelled.open(OUTPUT) as labelled:
        said = labelled.connection.execute("SELECT dialogue_id, text FROM turns ORDER BY ALL").fetchall()
        assert said == [("b", "stop"), ("c", "stop")]


class Killed(BaseException):
    """In place of SIGKILL: what is on the server is the same."""


def test_a_reader_of_the_manifests_finds_one_run_wherever_the_next_is_killed_while_it_publishes(
    bucket: Any, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BaseClient._make_api_call
    left = 0

    def killed(client: Any, operation: str, parameters: Any) -> Any:
        nonlocal left
        if operation in ("CopyObject", "DeleteObjects", "CompleteMultipartUpload"):
            if left == 0:
                raise Killed
            left -= 1
        return real(client, operation, parameters)

    seen = []
    for moment in range(0, 100, 4):
        former, new = f"a{moment}", f"b{moment}"
        publish.publish(OUTPUT, *stage(OUTPUT, f"former-{moment}", [former]), {})
        staging, manifest = stage(OUTPUT, f"new-{moment}", [new])
        left = moment
        with monkeypatch.context() as patched, suppress(Killed):
            patched.setattr(BaseClient, "_make_api_call", killed)
            publish.publish(OUTPUT, staging, manifest, {})
            break
        seen += [name[0] for name in named_by_the_manifests(bucket)]
        publish.complete_interrupted(OUTPUT)
        assert named_by_the_manifests(bucket) in ([former], [new])
    assert globbed(bucket) == named_by_the_manifests(bucket) == [new]
    assert "".join(seen).rstrip("b").strip("a") == ""
    assert {"a", "b"} <= set(seen)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--output", "s3://nowhere/out"], "Cannot write to --output s3://nowhere/out"),
        (["--input", "s3://nowhere/*"], "--input s3://nowhere/*"),
        (["--mlflow-tracking-uri", ""], "--mlflow-tracking-uri"),
    ],
)
def test_a_mistake_there_is_one_sentence_and_exit_code_2(
    bucket: Any, command: list[str], capfd: pytest.CaptureFixture[str], change: list[str], said: str
) -> None:
    put(bucket, "in/1.gz", "a")
    assert main(["label", *command, *change]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_token_that_expires_while_a_log_is_read_is_one_sentence_and_exit_code_1(
    bucket: Any, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "in/1.gz", "a")
    real = BaseClient._make_api_call

    def expired(client: Any, operation: str, parameters: Any) -> Any:
        if operation != "GetObject":
            return real(client, operation, parameters)
        said = {"Error": {"Message": "the token has expired"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(said, operation)

    with monkeypatch.context() as patched:
        patched.setattr(BaseClient, "_make_api_call", expired)
        assert main(["label", *command]) == 1
    error = capfd.readouterr().err
    assert "Cannot read s3://logs/in/1.gz now" in error
    assert "the token has expired" in error
    assert error.count("\n") == 1
