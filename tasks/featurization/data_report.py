"""The data report that each partner gets: counts by rule and reason, and one page that shows them.

Why: people look at where their rows went before they read a log. Runs: on the partner. Source: own.

Nothing but counts, and names of our own, is in the report; the page adds the partner's own names of the endpoints
that are not trained. Values and structures are in neither.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data_contracts.report import ValidationReport
from tasks.featurization.endpoint_tables import EXCLUSIONS
from tasks.featurization.endpoints import EndpointTables
from tasks.featurization.preparation_rules import PreparationRules

BAR_WIDTH, BAR_HEIGHT, ROW_HEIGHT, NAME_WIDTH, COUNT_WIDTH = 420, 16, 22, 290, 110
BLUE, ORANGE = "#0072b2", "#d55e00"  # distinct also for the colour-blind (Okabe and Ito)
MAX_LISTED = 2_000
STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "h2{margin:1.6em 0 .3em}td,th{padding:.15em 1em .15em 0;text-align:left}td.n,th.n{text-align:right}"
    "svg{max-width:100%}text{font:14px system-ui,sans-serif;fill:#222}"
)
Bar = tuple[str, int, str]


def data_report(
    files: Sequence[ValidationReport],
    tables: EndpointTables,
    *,
    n_parents: int,
    n_prepared: int,
    rules: PreparationRules,
) -> dict[str, Any]:
    """Collect ``data_report.json``.

    Args:
        files: One for each file the partner brought; for each, accepted + quarantined = read.
        tables: Endpoints and labels.
        n_parents: Distinct parents of all accepted structures.
        n_prepared: Those with an accepted activity.
        rules: The profile.

    Returns:
        JSON: counts by rule and reason.
    """
    active, inactive = (
        int(pc.sum(tables.endpoints.column(name)).as_py() or 0) for name in ("n_active", "n_inactive")
    )
    reasons = [row["reason"] for row in tables.excluded]
    return {
        "profile": {"name": rules.name, "version": rules.version, "digest": rules.digest},
        "files": [_file_counts(report) for report in files],
        "for_consortium": [report.for_consortium() for report in files],
        "structures": {
            "distinct_parents": n_parents,
            "without_activity": n_parents - n_prepared,
            "prepared": n_prepared,
        },
        "pairs": {
            "measured": tables.tally.pairs,
            "contradictory": tables.tally.contradictory,
            "of constant assays": tables.tally.constant,
        },
        "endpoints": {
            "prepared": tables.endpoints.num_rows,
            "in_evaluation": int(np.count_nonzero(tables.endpoints.column("in_evaluation").to_numpy())),
            "excluded": {reason: reasons.count(reason) for reason in EXCLUSIONS},
        },
        "labels": {"active": active, "inactive": inactive},
        "ambiguous": tables.tally.ambiguous_labels,
    }


def _file_counts(report: ValidationReport) -> dict[str, Any]:
    return {
        "contract": report.contract,
        "rows": {
            "read": report.rows_read,
            "accepted": report.rows_accepted,
            "quarantined": report.rows_quarantined,
        },
        "rules": [{"rule": f.rule, "column": f.column, "count": f.count} for f in report.findings if f.count],
    }


def render_page(report: Mapping[str, Any], excluded: Sequence[Mapping[str, Any]]) -> str:
    """Render the report as a page.

    Args:
        report: As ``data_report`` makes it.
        excluded: Endpoints that are not trained, as ``EndpointTables.excluded``.

    Returns:
        Self-contained HTML with inline SVG bars, without scripts.
    """
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Data report</title>",
        f"<style>{STYLE}</style><h1>Data report</h1>",
        "<p>Counts only; values are withheld, and this page stays at the partner.</p>",
        "<p>Which row fell at which rule stands in <code>quarantine/</code>, by its number in the file.</p>",
    ]
    for file in report["files"]:
        rows = file["rows"]
        parts.append(f"<h2>{html.escape(file['contract'].split('@')[0].capitalize())}</h2>")
        parts.append(
            f"<p>{rows['read']:,} rows read = {rows['accepted']:,} accepted + {rows['quarantined']:,} quarantined</p>"
        )
        fallen = [(f"{rule['rule']}: {rule['column']}", rule["count"], ORANGE) for rule in file["rules"]]
        parts.append(_bars([("accepted", rows["accepted"], BLUE), *fallen], title="rows by rule"))
    structures, pairs, labels = report["structures"], report["pairs"], report["labels"]
    parts.append("<h2>What is learned from</h2>")
    bars = [
        ("distinct parent structures", structures["distinct_parents"], BLUE),
        ("without an activity", structures["without_activity"], ORANGE),
        ("prepared structures", structures["prepared"], BLUE),
        ("measured pairs of structure and assay", pairs["measured"], BLUE),
        ("contradictory pairs", pairs["contradictory"], ORANGE),
        ("active labels", labels["active"], BLUE),
        ("inactive labels", labels["inactive"], BLUE),
    ]
    parts.append(_bars(bars, title="structures, pairs and labels"))
    sections = (*_leakage_section(report["leakage"]), *_endpoint_section(report["endpoints"], excluded))
    return "\n".join([*parts, *sections, "</html>"])


def _leakage_section(leakage: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>How near the test fold lies to what is trained on</h2>"
    yield (
        f"<p>Tanimoto similarity of {leakage['test']:,} test structures to the nearest of {leakage['training']:,} "
        f"training structures; {leakage['near']:,} have one at 0.6 or above, which makes them easy.</p>"
    )
    width = 1 / len(leakage["histogram"])
    bars = [
        (f"{place * width:.1f} to {(place + 1) * width:.1f}", count, BLUE)
        for place, count in enumerate(leakage["histogram"])
    ]
    yield _bars(bars, title="nearest training structure")


def _endpoint_section(endpoints: Mapping[str, Any], excluded: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield "<h2>Endpoints</h2>"
    bars = [
        ("trained", endpoints["prepared"], BLUE),
        ("of them in evaluation", endpoints["in_evaluation"], BLUE),
    ]
    bars += [(f"excluded: {reason}", count, ORANGE) for reason, count in endpoints["excluded"].items()]
    yield _bars(bars, title="endpoints")
    if not excluded:
        return
    yield f"<details><summary>{len(excluded):,} endpoints that are not trained</summary><table>"
    yield "<tr><th>endpoint<th>reason<th class=n>actives<th class=n>inactives</tr>"
    for row in excluded[:MAX_LISTED]:
        yield (
            f"<tr><td>{html.escape(row['endpoint'])}<td>{row['reason']}"
            f"<td class=n>{row['n_active']}<td class=n>{row['n_inactive']}</tr>"
        )
    if len(excluded) > MAX_LISTED:
        yield "<tr><td colspan=4>and so on, see <code>excluded_endpoints.json</code></tr>"
    yield "</table></details>"


def _bars(bars: Sequence[Bar], *, title: str) -> str:
    largest = max((count for _, count, _ in bars), default=0) or 1
    size = (NAME_WIDTH + BAR_WIDTH + COUNT_WIDTH, len(bars) * ROW_HEIGHT)
    lines = [
        f'<svg viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}" role="img" aria-label="{title}">'
    ]
    for place, (name, count, colour) in enumerate(bars):
        top = place * ROW_HEIGHT
        width = max(round(BAR_WIDTH * count / largest), 1 if count else 0)
        lines.append(f'<text x="0" y="{top + 13}">{html.escape(name)}</text>')
        lines.append(
            f'<rect x="{NAME_WIDTH}" y="{top}" width="{width}" height="{BAR_HEIGHT}" fill="{colour}"/>'
        )
        lines.append(f'<text x="{NAME_WIDTH + width + 8}" y="{top + 13}">{count:,}</text>')
    return "\n".join([*lines, "</svg>"])
