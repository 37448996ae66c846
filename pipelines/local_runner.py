"""Beam's FnApiRunner, the default runner; with several processes it here tells them the job's options.

Beam's own tells them none: they would reach S3 by the environment alone, and log all that Beam says, each twenty lines.
"""

from __future__ import annotations

import logging

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineResult


class LocalRunner(FnApiRunner):  # type: ignore[misc]
    """Runs in this process, or in processes of this machine. Without an option for it these log as Beam does here."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        """Runs the graph to its end. Raises what the graph has raised."""
        level = {"default_sdk_harness_log_level": str(logging.getLogger(beam.__name__).getEffectiveLevel())}
        told = JobServiceHandle.encode_pipeline_options(level | options.get_all_options(drop_default=True))
        info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused", pipeline_options=told)
        return FnApiRunner(provision_info=ExtendedProvisionInfo(info)).run_pipeline(pipeline, options)
