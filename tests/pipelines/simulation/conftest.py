"""One assistant for all tests of the simulated world: it takes seconds to train."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.simulation.assistant import Assistant
from pipelines.simulation.dialogue import Knobs, simulate
from pipelines.simulation.world import World
from schemas.log import Dialogue


@pytest.fixture(scope="session")
def assistant() -> Assistant:
    return Assistant(World())


@pytest.fixture(scope="session")
def knobs() -> Knobs:
    """About those of the default rates."""
    return Knobs(wake=0.06, asr=0.7, nlu=0.07, er=0.3, result=0.05, telephone=0.25)


@pytest.fixture(scope="session")
def calls(assistant: Assistant, knobs: Knobs) -> list[Dialogue]:
    """Telephone calls, most of them on noisy lines."""
    return [simulate(assistant, dataclasses.replace(knobs, wake=0.2, telephone=1.0), 0, index) for index in range(150)]


@pytest.fixture(scope="session")
def dialogues(assistant: Assistant, knobs: Knobs) -> list[Dialogue]:
    return [simulate(assistant, knobs, 0, index) for index in range(400)]
