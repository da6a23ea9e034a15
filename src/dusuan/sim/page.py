"""A comparison or one run as a page of HTML that needs nothing else: tables, and plots as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

Curves = Mapping[str, npt.NDArray[np.float64]]
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.3rem .8rem;border-bottom:1px solid #8884;text-align:right}
td:first-child,th:first-child{text-align:left} small{opacity:.7} svg{max-width:100%;height:auto}
figure{margin:2rem 0} @media(prefers-color-scheme:dark){body{background:#111;color:#eee}
svg{background:#fff;border-radius:6px}}
"""


def page(title: str, facts: Mapping[str, Any], rows: Sequence[Sequence[str]], plots: str) -> str:
    """The page. The first of `rows` is the head; `plots` is HTML that follows."""
    given = " · ".join(f"{escape(str(k))}: {escape(str(v))}" for k, v in facts.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p><small>{given}</small></p>"
        f"{_rows(rows)}{plots}</html>\n"
    )


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A further table below a heading; the first of `rows` is its head."""
    return f"<h2>{escape(title)}</h2>{_rows(rows)}"


def _rows(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def distribution(curves: Curves, name: str, unit: str) -> str:
    """How many jobs had at most so much of something, by policy: a figure."""
    figure, axes = _figure()
    for label, values in curves.items():
        shown = np.quantile(values, np.linspace(0, 1, 400)) if len(values) else values
        axes.plot(np.maximum(shown, 1e-3), np.linspace(0, 1, len(shown)), label=label)
    axes.set_xscale("log")
    axes.set_xlim(left=1)
    axes.set_xlabel(f"{name} ({unit})")
    axes.set_ylabel("part of the jobs")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _svg(figure, f"Distribution of the {name}")


def over_time(hours: npt.NDArray[np.float64], curves: Curves, name: str) -> str:
    """Something over the time of the trace: a figure."""
    figure, axes = _figure()
    for label, values in curves.items():
        axes.plot(hours / 24, values, label=label, linewidth=1)
    axes.set_xlabel("days")
    axes.set_ylabel(name)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _svg(figure, name.capitalize())


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # half a second, for pages only

    figure = Figure(figsize=(9, 4), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any, caption: str) -> str:
    """The figure, of the same bytes for the same data."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "dusuan", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    return f"<figure>{text}<figcaption>{escape(caption)}</figcaption></figure>"
