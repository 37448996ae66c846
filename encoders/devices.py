"""From columns of numbers to tensors where the weights are."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def placed(numbers: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The numbers as a tensor on the device. A GPU copies them out of pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(numbers)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
