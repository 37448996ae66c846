"""The date of a run, and paths that have it in them: `logs/{date}/*.jsonl`, or `logs/{date:%Y/%m/%d}/*.jsonl`."""

from __future__ import annotations

import argparse
import datetime as dt
import re

_PLACE = re.compile(r"\{date(?::(?P<form>[^{}]+))?\}")


def date(text: str) -> dt.date:
    """For argparse: `YYYY-MM-DD`, or `yesterday`, which is that of UTC."""
    if text == "yesterday":
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a date in the form YYYY-MM-DD nor yesterday") from None


def has_place(path: str) -> bool:
    """Whether a date belongs into the path."""
    return _PLACE.search(path) is not None


def fill(path: str, day: dt.date) -> str:
    """The path with the date in each of its places, in the form of `strftime` that stands there, else `YYYY-MM-DD`."""
    return _PLACE.sub(lambda place: day.strftime(place["form"] or "%Y-%m-%d"), path)
