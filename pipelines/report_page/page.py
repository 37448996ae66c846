"""Puts the page together: one HTML file that needs nothing else and may load nothing else.

Its content security policy allows the one style sheet and the one script that are in it, by their hashes. All texts
go through Jinja's escaping or, as data, through its JSON for HTML.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from importlib.resources import files
from typing import Any

import jinja2
import msgspec
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from pipelines.report_page.charts import percent, points, spoken
from pipelines.report_page.examples import ShownDialogue, cut
from schemas.log import FailurePoint

_NOTHING_ELSE = "base-uri 'none'; form-action 'none'"
_FOLDER = files("pipelines.report_page")


def render(dialogues: list[ShownDialogue], **values: Any) -> str:
    """The page as HTML text. `values` are what `page.html.jinja` names."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "number": _number,
        "day": _day,
        "moment": spoken,
        "cut": cut,
    }
    css, js = (_FOLDER.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    data = htmlsafe_json_dumps(
        {"points": list(FailurePoint), "dialogues": dialogues}, dumps=lambda each: msgspec.json.encode(each).decode()
    )
    template = environment.from_string(_FOLDER.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        css=Markup(css),
        js=Markup(js),
        data=data,
        policy=f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(js)}; {_NOTHING_ELSE}",
        **values,
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _number(value: int) -> str:
    return f"{value:,}"


def _day(time: dt.datetime) -> str:
    return f"{time.day} {time:%B %Y}"
