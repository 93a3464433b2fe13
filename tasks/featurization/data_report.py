"""The data report that each partner gets: one HTML page, no script, counts and no values.

Why: people look at where their rows went before they read a log. Runs: on the partner. Source: own.
"""

import html
from collections.abc import Iterable, Mapping
from typing import Any

BAR_WIDTH, BAR_HEIGHT = 420, 18
STYLE = "body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .8em;text-align:left}"


def render_report(report: Mapping[str, Any]) -> str:
    """Render ``data_report.json`` as a page.

    Args:
        report: As ``prepare_dataset`` makes it.

    Returns:
        Self-contained HTML with inline SVG bars.
    """
    parts = ["<!doctype html><meta charset=utf-8><title>Data report</title>", f"<style>{STYLE}</style>"]
    parts.append(
        "<h1>Data report</h1><p>Counts only; values are withheld. This page stays at the partner.</p>"
    )
    for file in report["files"]:
        rows = file["rows"]
        parts.append(f"<h2>{html.escape(file['source'])}</h2><p>contract {html.escape(file['contract'])}</p>")
        bars = [
            ("rows read", rows["read"]),
            ("accepted", rows["accepted"]),
            ("quarantined", rows["quarantined"]),
        ]
        bars += [
            (f"{finding['rule']} of {finding['column']}", finding["count"]) for finding in file["findings"]
        ]
        parts.append(_bars(bars))
    structures, activities = report["structures"], report["activities"]
    parts.append("<h2>Structures</h2>")
    parts.append(
        _bars(
            [
                ("accepted rows", structures["accepted"]),
                *((f"refused: {reason}", count) for reason, count in structures["refused"].items()),
                ("distinct parents", structures["distinct_parents"]),
                ("without an activity", structures["without_activity"]),
                ("prepared", structures["prepared"]),
            ]
        )
    )
    parts.append("<h2>Activities and endpoints</h2>")
    parts.append(
        _bars(
            [
                ("accepted activities", activities["accepted"]),
                ("of refused structures", activities["of_refused_structures"]),
                ("contradictory pairs", activities["contradictory_pairs"]),
                ("labels", report["labels"]),
            ]
        )
    )
    endpoints = report["endpoints"]
    parts.append(
        f"<p>{endpoints['prepared']} endpoints are trained, {endpoints['in_evaluation']} of them enter means, "
        f"{len(endpoints['excluded'])} are below the training quorum:</p>"
    )
    parts.append(_excluded(endpoints["excluded"]))
    return "\n".join(parts)


def _bars(bars: Iterable[tuple[str, int]]) -> str:
    bars = list(bars)
    largest = max((count for _, count in bars), default=0) or 1
    lines = [f'<svg width="{BAR_WIDTH + 420}" height="{len(bars) * (BAR_HEIGHT + 4)}" role="img">']
    for place, (name, count) in enumerate(bars):
        top = place * (BAR_HEIGHT + 4)
        width = max(round(BAR_WIDTH * count / largest), 1 if count else 0)
        lines.append(f'<text x="0" y="{top + 14}">{html.escape(name)}</text>')
        lines.append(f'<rect x="260" y="{top}" width="{width}" height="{BAR_HEIGHT}" fill="#0072b2"/>')
        lines.append(f'<text x="{268 + width}" y="{top + 14}">{count:,}</text>')
    return "\n".join([*lines, "</svg>"])


def _excluded(excluded: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(row['endpoint'])}</td><td>{row['reason']}</td>"
        f"<td>{row['n_active']}</td><td>{row['n_inactive']}</td></tr>"
        for row in excluded
    )
    return f"<table><tr><th>endpoint</th><th>reason</th><th>actives</th><th>inactives</th></tr>{rows}</table>"
