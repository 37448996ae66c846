"""The model on a device that this machine has not, as a GPU: all that is computed there must be there.

The device of these tests computes on the CPU, and fails where a tensor of another device takes part, as a GPU does. It
goes by the name of PyTorch's `meta`, of which tensors otherwise have no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

import labelers
from labelers.model import Model
from pipelines.logs import read_logs

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"
ELSEWHERE = torch.device("meta")


def test_all_that_is_computed_elsewhere_is_there_and_the_labels_are_the_same() -> None:
    dialogues = read_logs([str(LOGS)], "jsonl").dialogues
    folder = Path(labelers.__file__).parent / "builtin"
    here = Model.load(folder).label(dialogues)
    with elsewhere():
        model = Model.load(folder, ELSEWHERE.type)
        assert model.device == ELSEWHERE
        assert model.label(dialogues) == here
        assert {each.device for each in model.state_dict().values()} == {ELSEWHERE}


def test_what_is_left_behind_is_noticed() -> None:
    with elsewhere():
        there = torch.ones(2, device=ELSEWHERE)
        assert (there + there).tolist() == [2, 2]
        with pytest.raises(AssertionError, match="two devices"):
            there + torch.ones(2)


def test_a_model_that_moves_forgets_what_it_kept(tiny_model_dir: Path) -> None:
    dialogues = read_logs([str(LOGS)], "jsonl").dialogues
    model = Model.load(tiny_model_dir)
    here = model.label(dialogues)
    with elsewhere():
        model.to(ELSEWHERE)
        assert model.label(dialogues) == here


class There(Tensor):
    """A tensor of that device."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.size(), here.stride(), here.storage_offset(), dtype=here.dtype, device=ELSEWHERE
        )
        made.here = here
        return made  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


@contextmanager
def elsewhere() -> Iterator[None]:
    """Within, `ELSEWHERE` is a device to compute on, without gradients."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with torch.inference_mode(), _Operations(), _Functions():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What never gets to an operation."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if function is torch.tensor:
            device = options.pop("device", None)
            made = function(*args, **options)
            return made if device is None else made.to(device)
        if function is Tensor.tolist:
            return function(args[0].cpu())
        return function(*args, **options)


def _compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operation.overloadpacket.__name__
    if name == "_has_compatible_shallow_copy_type":
        return False
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    device = kwargs.get("device")
    if name in ("to", "_to_copy") or not any(isinstance(each, There) for each in tensors):
        is_there = torch.device(device) == ELSEWHERE if device is not None else isinstance((*tensors, None)[0], There)
    else:
        is_there = True
        # As on a GPU, a single number may be on the CPU.
        mixed = [each for each in tensors if not isinstance(each, There) and each.dim()]
        assert not mixed, f"{operation} has tensors of two devices"
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    given, options = tree_map_only(There, lambda each: each.here, (args, kwargs))
    found = operation(*given, **options)
    if not is_there or name == "_local_scalar_dense":
        return found
    in_place = args and isinstance(args[0], There) and found is args[0].here
    return args[0] if in_place else tree_map_only(Tensor, There, found)
