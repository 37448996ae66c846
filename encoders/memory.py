"""Memory that is no longer needed, back to the system."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def give_back() -> None:
    """Gives the memory that was freed back to the system.

    The C library and Arrow keep it for what is asked for next. That seldom fits where small things that stay lie in
    between, so of encoding batches of ever other shapes more would be kept from one to the next.
    """
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
