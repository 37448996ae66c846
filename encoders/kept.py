"""Vectors that are kept because the same will be asked for again.

They lie in one block of memory. If each had some of its own, it would lie between the large and short-lived tensors
of the encoders, and keep the pages around it from being given back to the system.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

from encoders.devices import placed

K = TypeVar("K", bound=Hashable)


class KeptVectors(Generic[K]):
    """Up to `size` vectors by key; where there are more, those go that were not asked for the longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: LRUCache[K, int] = LRUCache(size)
        self._block: Tensor | None = None
        # Threads share a model (such as those of a Dask worker), and the cache reorders itself when it is read.
        self._lock = threading.Lock()

    def look_up(self, keys: Sequence[K], encode: Callable[[list[K]], Tensor], *, keep: bool = True) -> Tensor:
        """(keys, E) vectors. `encode` is asked once for all that are not kept; `keep`: from now on they are."""
        rows, vectors = self._known(keys)
        unknown = [key for key in dict.fromkeys(keys) if key not in rows]
        if unknown or vectors is None:
            new = encode(unknown)
            if keep:
                self._keep(unknown, new)
            rows.update({key: row for row, key in enumerate(unknown, start=len(rows))})
            vectors = new if vectors is None else torch.cat([vectors, new])
        return vectors[placed(np.array([rows[key] for key in keys], np.int64), vectors.device)]

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._rows.clear()
            self._block = None

    def _known(self, keys: Sequence[K]) -> tuple[dict[K, int], Tensor | None]:
        """Which of the keys are kept, each with the row of a copy of their vectors."""
        with self._lock:
            rows = {key: self._rows[key] for key in keys if key in self._rows}
            if self._block is None or not rows:
                return {}, None
            copy = self._block[placed(np.array(list(rows.values()), np.int64), self._block.device)]
        return {key: row for row, key in enumerate(rows)}, copy

    def _keep(self, keys: Sequence[K], vectors: Tensor) -> None:
        keys, vectors = keys[-self._size :], vectors[-self._size :]
        if not keys:
            return
        with self._lock:
            if self._block is None:
                # A tensor that was made in inference mode could not be written to outside of it.
                with torch.inference_mode(False):
                    self._block = torch.empty(self._size, vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
            rows = np.array([self._row(key) for key in keys], np.int64)
            self._block[placed(rows, self._block.device)] = vectors

    def _row(self, key: K) -> int:
        if key not in self._rows:
            full = len(self._rows) == self._size
            self._rows[key] = self._rows.popitem()[1] if full else len(self._rows)
        row: int = self._rows[key]
        return row
