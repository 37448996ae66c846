"""The page's plots: made with Vega-Altair, drawn here as SVG, so that the page needs no program to draw them.

Colours are the page's custom properties (`var(--asr)`), so that a plot follows the light or the dark scheme.
Every mark has a description, which the page shows under the pointer and by the arrow keys; the same numbers stand
in a table beside the plot. A plot is drawn twice, for a wide and for a narrow screen.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

from pipelines.report_page.numbers import DEFECTS, Moment, Rate
from pipelines.results import HISTOGRAM_BINS

_VERSION = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
_SVG = "http://www.w3.org/2000/svg"
_WIDE, _NARROW = 1000, 330
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    # Axes are no values to step through.
    "axis": {
        "aria": False,
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "header": {"labelColor": "var(--ink)", "labelFontSize": 13, "labelFontWeight": "bold", "labelAnchor": "start"},
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
}
_TIME_FORMATS = {"hour": "%-d %b %H:%M", "day": "%-d %b", "week": "%-d %b %Y", "month": "%b %Y"}
_SHORT_FORMATS = {"hour": "%H:%M", "day": "%-d %b", "week": "%-d %b", "month": "%b %y"}
_SPOKEN = {
    "hour": "%A %-d %B %Y, %H:00 UTC",
    "day": "%A %-d %B %Y",
    "week": "the week from %-d %B %Y",
    "month": "%B %Y",
}


# The default namespace, as HTML wants its SVG.
ElementTree.register_namespace("", _SVG)


class Plot(NamedTuple):
    """The same plot as two SVG elements."""

    wide: Markup
    narrow: Markup


def percent(share: float) -> str:
    """A share as the page says it: `12.3 %`; a dash of nothing."""
    return "—" if share != share else f"{100 * share:.1f}\u00a0%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: `+1.2`."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\u2212")


def interval(rate: Rate) -> str:
    """`12.3 % (95 %: 11.0 to 13.4 %)`."""
    return f"{percent(rate.value)} (95 %: {100 * rate.low:.1f} to {percent(rate.high)})"


def spoken(start: dt.datetime, unit: str) -> str:
    """A moment in words."""
    return start.strftime(_SPOKEN[unit])


def failed_over_time(moments: Sequence[Moment], unit: str) -> Plot:
    """The share of turns that failed, with its interval, over how many turns there were."""
    rows = [
        {
            "start": moment.start.isoformat(),
            "share": moment.failed.value,
            "low": moment.failed.low,
            "high": moment.failed.high,
            "turns": moment.failed.whole,
            "said": f"{spoken(moment.start, unit)}: {interval(moment.failed)} of {moment.failed.whole:,} turns failed",
            "counted": f"{spoken(moment.start, unit)}: {moment.failed.whole:,} turns",
        }
        for moment in moments
    ]

    def draw(width: int) -> Any:
        base = alt.Chart(alt.InlineData(values=rows))
        ticks = max(2, width // 110)
        hidden = alt.Axis(labels=False, ticks=False, tickCount=ticks)
        shares = base.encode(x=_time(hidden))
        band = shares.mark_area(color="var(--defect)", opacity=0.18, aria=False).encode(
            y=alt.Y("low:Q", title="turns that failed", axis=alt.Axis(format="%", tickCount=4)), y2="high:Q"
        )
        line = shares.mark_line(color="var(--defect)", strokeWidth=2, aria=False).encode(y="share:Q")
        points = shares.mark_point(color="var(--defect)", filled=True, size=34, opacity=1).encode(
            y="share:Q", description="said:N"
        )
        volume = (
            base.mark_bar(color="var(--correct)", width=min(14, max(1, int(0.7 * width / len(rows)))))
            .encode(
                x=_time(alt.Axis(format=_TIME_FORMATS[unit], tickCount=ticks, labelOverlap=True)),
                y=alt.Y("turns:Q", axis=alt.Axis(tickCount=2, format="~s")),
                description="counted:N",
            )
            .properties(width=width, height=44)
        )
        both = (band + line + points).properties(width=width, height=190)
        return alt.vconcat(both, volume, spacing=8).resolve_scale(x="shared")

    return _plot(draw, "Share of turns that failed over time, with 95 % intervals, and turns over time")


def points_over_time(moments: Sequence[Moment], unit: str) -> Plot:
    """The share of turns that failed at each component, a small plot a failure point."""
    rows = [
        {
            "start": moment.start.isoformat(),
            "point": str(point),
            "share": rate.value,
            "low": rate.low,
            "high": rate.high,
            "said": f"{point}, {spoken(moment.start, unit)}: {interval(rate)} of {rate.whole:,} turns",
        }
        for moment in moments
        for point, rate in moment.points.items()
    ]
    names = [str(point) for point in DEFECTS]
    # The interval of a component that never failed on a quiet day is wide, and would squeeze all the others.
    highest = max((rate.high for moment in moments for rate in moment.points.values() if rate.part), default=1)
    scale = alt.Scale(domain=names, range=[f"var(--{name})" for name in names])
    colours = alt.Color("point:N", legend=None, scale=scale)

    def draw(width: int) -> Any:
        columns = 5 if width == _WIDE else 2
        each = (width - 60) // columns - 24
        base = alt.Chart().encode(
            x=_time(alt.Axis(format=_SHORT_FORMATS[unit], tickCount=2, labelOverlap="greedy")), color=colours
        )
        y = alt.Y("share:Q", title=None, scale=alt.Scale(domain=[0, highest]), axis=alt.Axis(format="%", tickCount=3))
        band = base.mark_area(opacity=0.18, aria=False, clip=True).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
        line = base.mark_line(strokeWidth=2, aria=False).encode(y=y)
        points = base.mark_point(filled=True, size=20, opacity=1).encode(y=y, description="said:N")
        layer = alt.layer(band, line, points, data=alt.InlineData(values=rows)).properties(width=each, height=110)
        header = alt.Header(title=None, labelPadding=4)
        return layer.facet(
            facet=alt.Facet("point:N", sort=names, header=header),
            columns=columns,
            spacing=24,
        )

    return _plot(draw, "Share of turns by failure point over time, with 95 % intervals")


def confidences(histograms: Mapping[str, Sequence[int]]) -> Plot:
    """A histogram a probability. `histograms`: rows in bins of equal width from 0 to 1, by what is counted."""
    rows = [
        {
            "what": what,
            "from": place / HISTOGRAM_BINS,
            "to": (place + 1) / HISTOGRAM_BINS,
            "rows": number,
            "said": f"{what} from {place / HISTOGRAM_BINS:.2f} to {(place + 1) / HISTOGRAM_BINS:.2f}: {number:,} rows",
        }
        for what, counts in histograms.items()
        for place, number in enumerate(counts)
    ]

    def draw(width: int) -> Any:
        columns = 4 if width == _WIDE else 1
        zero_to_one = alt.Scale(domain=[0, 1])
        each = (width - 60 * columns) // columns
        bars = (
            alt.Chart(alt.InlineData(values=rows))
            .mark_bar(color="var(--accent)")
            .encode(
                x=alt.X(
                    "from:Q",
                    bin="binned",
                    title=None,
                    scale=zero_to_one,
                    axis=alt.Axis(values=[0, 0.5, 1]),
                ),
                x2="to:Q",
                y=alt.Y("rows:Q", title=None, axis=alt.Axis(tickCount=3, format="~s")),
                description="said:N",
            )
            .properties(width=each, height=90)
        )
        return bars.facet(
            facet=alt.Facet("what:N", sort=list(histograms), header=alt.Header(title=None)), columns=columns, spacing=24
        ).resolve_scale(y="independent")

    return _plot(draw, "How sure the model is: rows by probability")


def _time(axis: alt.Axis) -> alt.X:
    return alt.X("start:T", title=None, scale=alt.Scale(type="utc", padding=8), axis=axis)


def _plot(draw: Callable[[int], Any], name: str) -> Plot:
    return Plot(*(_svg(draw(width), name) for width in (_WIDE, _NARROW)))


def _svg(chart: Any, name: str) -> Markup:
    specification = {**chart.to_dict(), "config": _CONFIG}
    svg = ElementTree.fromstring(vl_convert.vegalite_to_svg(specification, vl_version=_VERSION))
    for attribute in ("class", "width", "height", "version"):
        svg.attrib.pop(attribute)
    svg.attrib |= {"role": "graphics-document", "aria-label": name, "tabindex": "0"}
    return Markup(ElementTree.tostring(svg, encoding="unicode"))
