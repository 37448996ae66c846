"""The dialogue encoder and its windows."""

from __future__ import annotations

import pytest
import torch

from encoders.dialogue import MARGIN, WINDOW, DialogueEncoder, DialogueEncoderConfig, windows

WIDTH = 16


@pytest.fixture(scope="module")
def encoder() -> DialogueEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = DialogueEncoder(DialogueEncoderConfig(width=WIDTH, layers=2, heads=2))
        # As after training: zero at first.
        torch.nn.init.normal_(encoder.distances.weight)
    return encoder.eval()


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(3, WINDOW, WIDTH, generator=torch.Generator().manual_seed(1))


def _mask(*lengths: int, width: int = WINDOW) -> torch.Tensor:
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def test_without_gradients_it_computes_the_same(encoder: DialogueEncoder, vectors: torch.Tensor) -> None:
    mask = _mask(WINDOW, 5, 1)
    learning = encoder(vectors, mask)
    with torch.inference_mode():
        labelling = encoder(vectors, mask)
    torch.testing.assert_close(labelling, learning, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_padding_changes_nothing(encoder: DialogueEncoder, vectors: torch.Tensor) -> None:
    together = encoder(vectors, _mask(WINDOW, 5, 1))
    alone = encoder(vectors[1:2, :5], _mask(5, width=5))
    torch.testing.assert_close(together[1, :5], alone[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_order_in_the_batch_changes_nothing(encoder: DialogueEncoder, vectors: torch.Tensor) -> None:
    mask = _mask(WINDOW, 5, 1)
    torch.testing.assert_close(encoder(vectors.flip(0), mask.flip(0)).flip(0), encoder(vectors, mask))


@torch.inference_mode()
def test_a_window_of_padding_alone_gives_no_nan(encoder: DialogueEncoder, vectors: torch.Tensor) -> None:
    assert encoder(vectors, _mask(WINDOW, 0, 1)).isfinite().all()


@torch.inference_mode()
def test_a_state_does_not_depend_on_where_its_window_begins(encoder: DialogueEncoder, vectors: torch.Tensor) -> None:
    late = _mask(WINDOW) & (torch.arange(WINDOW) >= 20)
    shifted = encoder(vectors[:1], late)[:, 20:]
    torch.testing.assert_close(shifted, encoder(vectors[:1, 20:], _mask(44, width=44)), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_it_looks_both_ways(encoder: DialogueEncoder, vectors: torch.Tensor) -> None:
    mask, changed = _mask(WINDOW, 5, 1), vectors.clone()
    changed[0, 10] = -changed[0, 10]
    differs = (encoder(changed, mask) - encoder(vectors, mask)).abs().amax(dim=-1) > 1e-6
    assert differs[0, 0]
    assert differs[0, -1]
    assert not differs[1:].any()


def test_every_distance_learns(vectors: torch.Tensor) -> None:
    encoder = DialogueEncoder(DialogueEncoderConfig(width=WIDTH, layers=1, heads=2, dropout=0.0))
    encoder(vectors, _mask(WINDOW, 5, 1)).square().sum().backward()
    assert encoder.distances.weight.grad is not None
    assert (encoder.distances.weight.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("turns", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + MARGIN, 97, 3_000])
def test_windows_keep_every_turn_once_with_context_on_both_sides(turns: int) -> None:
    kept = []
    for window in windows(turns):
        assert window.last - window.first <= WINDOW
        assert window.keep_first - window.first >= MARGIN or window.keep_first == 0
        assert window.last - window.keep_last >= MARGIN or window.keep_last == turns
        kept += range(window.keep_first, window.keep_last)
    assert kept == list(range(turns))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide width"):
        DialogueEncoderConfig(width=10, heads=4)
