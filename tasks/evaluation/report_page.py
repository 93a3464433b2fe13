"""A partner's report as one page of HTML that needs nothing else: tables and pictures inside.

Why: it is mailed to a project team that has no Python. Runs: on the partner; it never leaves it. Source: own.
"""

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluation.comparison import FlipRow, TypeRow
from tasks.evaluation.pictures import ARMS, NAMES
from tasks.evaluation.uplift import Interval, Uplift

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#2b2f33;max-width:74rem;margin:2.5rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #c9ced3}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.22rem .6rem;text-align:right}
td{white-space:nowrap}
td:first-child,th:first-child{text-align:left}tr+tr td{border-top:1px solid #e6e9ec}th{font-weight:600}
.lead{font-size:1.1rem}.note{color:#56606b;font-size:.88rem}.banner{background:#fdf1d8;padding:.6rem .9rem}
img{max-width:100%;height:auto}figure{margin:1rem 0}.up{color:#0072B2}.down{color:#D55E00}
.pair{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}.pair figure{flex:1 1 22rem;max-width:34rem}
.wide{overflow-x:auto}.wide td .note{display:block;line-height:1.2}.wide td,.wide th{vertical-align:top}
"""
LISTED = 15
OUTSIDE = ("logistic", "boosted")
"""Arms without a network; only the partner that fitted them sees them."""
NOTE = (
    "Test fold, which trained, chose and calibrated nothing. This page holds figures of single endpoints and stays "
    "at its partner."
)
SIMULATED = "Simulated assays on real molecules: these figures say nothing about any drug."


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint in the lists of best and worst."""

    endpoint: str
    n_test: int
    single: float
    federated: float
    adjusted_p: float


@dataclass(frozen=True)
class ConformalRow:
    """One arm at one level: what was promised, what was kept, and how often a set is one class."""

    arm: str
    promised: float
    validity_active: float
    validity_inactive: float
    efficiency: float


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows.

    Attributes:
        partner: Whose it is.
        simulated_assays: Whether a banner must say so.
        uplift: The arms over the counted endpoints.
        headline: The metric that the lists and tables by type show.
        types: Table by assay type.
        flips: Table of endpoints over bars.
        further: Per metric and arm the mean of the further metrics.
        conformal: Table of conformal quality.
        endpoints: Counted endpoints, the largest gain first.
        n_significant: Endpoints with an adjusted p-value below 0.05.
        pictures: Files by what they show.
    """

    partner: str
    simulated_assays: bool
    uplift: Uplift
    headline: str
    types: Sequence[TypeRow]
    flips: Sequence[FlipRow]
    further: Mapping[str, Mapping[str, float]]
    conformal: Sequence[ConformalRow]
    endpoints: Sequence[EndpointRow]
    n_significant: int
    pictures: Mapping[str, Path]


def render_report(content: ReportContent) -> str:
    """Render the page."""
    name = html.escape(content.partner)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>What federation gave {name}</title><style>{STYLE}</style>",
        f"<h1>What federation gave {name}</h1>",
        f"<p class=banner>{SIMULATED}</p>" if content.simulated_assays else "",
        f"<p class=note>{NOTE}</p>",
        *_lead(content),
        *_arms(content.uplift),
        *_by_type(content),
        *_endpoints(content),
        *_reliability(content),
        "</html>",
    ]
    return "\n".join(part for part in parts if part)


def _lead(content: ReportContent) -> Iterable[str]:
    found = content.uplift.metrics[content.headline]
    sure = found.uplift.low > 0 or found.uplift.high < 0
    word = "gained" if found.uplift.value > 0 else "lost"
    yield (
        f"<p class=lead>Over {content.uplift.n_endpoints} endpoints {NAMES[content.headline]} {word} "
        f"<b>{_signed(found.uplift)}</b>{'' if sure else ', which may be chance'}; RIPtoP "
        f"{100 * found.riptop.value:+.1f} %; {100 * found.endpoints_improved:.0f} % of the endpoints improved, "
        f"{content.n_significant} of them beyond chance.</p>"
    )
    yield _figure(content.pictures["uplift"], "Each arm with its 95 % bootstrap interval over assays")


def _arms(uplift: Uplift) -> Iterable[str]:
    arms = list(next(iter(uplift.metrics.values())).arms)
    yield "<h2>Arms</h2><div class=wide><table><tr><th>mean over endpoints" + "".join(
        f"<th>{html.escape(ARMS[arm][2])}" for arm in arms
    )
    yield "<th>uplift<th>RIPtoP<th>gap to pooled closed</tr>"
    for metric, found in uplift.metrics.items():
        cells = "".join(f"<td>{_interval(found.arms[arm])}" for arm in arms)
        closed = "-" if found.gap_closed is None else f"{100 * found.gap_closed.value:.0f} %"
        yield (
            f"<tr><td>{NAMES[metric]}{cells}<td class={_side(found.uplift.value)}>{_gain(found.uplift)}"
            f"<td>{100 * found.riptop.value:+.1f} %<td>{closed}</tr>"
        )
    yield "</table></div><p class=note>95 % bootstrap intervals over assays in brackets; the sign of uplift is turned so "
    named = " and ".join(html.escape(ARMS[arm][2]) for arm in arms if arm in OUTSIDE)
    outside = f" Outside baseline: {named}, one model per endpoint on the same fingerprints." if named else ""
    yield f"that positive is better.{outside}</p>"


def _by_type(content: ReportContent) -> Iterable[str]:
    metric = NAMES[content.headline]
    yield f"<h2>By assay type</h2><table><tr><th>assay type<th>endpoints<th>{metric} single<th>federated"
    yield "<th>uplift<th>RIPtoP<th>improved</tr>"
    for row in content.types:
        yield (
            f"<tr><td>{html.escape(row.assay_type)}<td>{row.n_endpoints}<td>{row.arms['single']:.3f}"
            f"<td>{row.arms['federated']:.3f}<td class={_side(row.uplift)}>{row.uplift:+.3f}"
            f"<td>{100 * row.riptop:+.1f} %<td>{100 * row.improved:.0f} %</tr>"
        )
    yield f"</table><h2>Endpoints over a bar</h2><table><tr><th>{metric}<th>lifted over<th>fell below</tr>"
    for flip in content.flips:
        yield f"<tr><td>{flip.bar:.1f}<td class=up>{flip.lifted}<td class=down>{flip.fallen}</tr>"
    yield "</table><div class=pair>"
    yield _figure(content.pictures["endpoints"], "One dot an endpoint")
    yield _figure(content.pictures["distribution"], f"Distribution of {metric} over endpoints")
    yield "</div>"


def _endpoints(content: ReportContent) -> Iterable[str]:
    gains = [row for row in content.endpoints if row.federated > row.single]
    losses = [row for row in content.endpoints[::-1] if row.federated < row.single]
    lists = {"Largest gains": gains[:LISTED], "Largest losses": losses[:LISTED]}
    metric = NAMES[content.headline]
    for title, rows in lists.items():
        yield f"<h2>{title}</h2><table><tr><th>endpoint<th>test labels<th>{metric} single<th>federated<th>change"
        yield "<th>adjusted p</tr>"
        for row in rows:
            change = row.federated - row.single
            p_value = "-" if math.isnan(row.adjusted_p) else f"{row.adjusted_p:.2g}"
            yield (
                f"<tr><td>{html.escape(row.endpoint)}<td>{row.n_test}<td>{row.single:.3f}<td>{row.federated:.3f}"
                f"<td class={_side(change)}>{change:+.3f}<td>{p_value}</tr>"
            )
        yield "</table>"
    yield "<p class=note>One-sided DeLong test of AUROC, adjusted by Benjamini and Yekutieli. All endpoints stand in "
    yield "<code>endpoints.parquet</code>.</p>"


def _reliability(content: ReportContent) -> Iterable[str]:
    arms = list(next(iter(content.further.values())))
    yield "<h2>How far predictions can be believed</h2><table><tr><th>mean over endpoints"
    yield "".join(f"<th>{html.escape(ARMS[arm][2])}" for arm in arms) + "</tr>"
    for metric, values in content.further.items():
        cells = "".join(f"<td>{values[arm]:.3f}" for arm in arms)
        yield f"<tr><td>{html.escape(metric)}{cells}</tr>"
    yield "</table><div class=pair>"
    yield _figure(content.pictures["calibration"], "Federated model, all counted endpoints together")
    yield _figure(content.pictures["conformal"], "Class-conditional conformal sets")
    yield "</div>"
    yield from _conformal(content)


def _conformal(content: ReportContent) -> Iterable[str]:
    """One row a promise: each arm's efficiency, and below it what it kept."""
    found = {(row.promised, row.arm): row for row in content.conformal}
    arms = list(dict.fromkeys(row.arm for row in content.conformal))
    yield "<div class=wide><table><tr><th>promised"
    yield "".join(f"<th>{html.escape(ARMS[arm][2])}" for arm in arms) + "<th>gain over single</tr>"
    for promised in dict.fromkeys(row.promised for row in content.conformal):
        cells = "".join(
            f"<td>{100 * row.efficiency:.1f} %<span class=note>kept {100 * row.validity_active:.1f} / "
            f"{100 * row.validity_inactive:.1f} %</span>"
            for row in (found[promised, arm] for arm in arms)
        )
        single, federated = (found[promised, arm].efficiency for arm in ("single", "federated"))
        gain = (
            f"<td class={_side(federated - single)}>{100 * (federated / single - 1):+.1f} %"
            if single
            else "<td>-"
        )
        yield f"<tr><td>{100 * promised:.0f} %{cells}{gain}</tr>"
    yield "</table></div><p class=note>Share of conformal sets with one class (efficiency); below it, the share of sets "
    yield "that hold the true class, for actives and inactives. Calibrated on the validation fold, measured here. "
    yield "Efficiency counts only while the promise is kept; where little is promised a better model leaves more sets "
    yield "empty, which lowers it.</p>"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f"<figure><img alt='{text}' src='data:image/png;base64,{data}'><figcaption class=note>{text}</figcaption></figure>"


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} <span class=note>[{found.low:.3f}, {found.high:.3f}]</span>"


def _gain(found: Interval) -> str:
    return f"{found.value:+.3f} <span class=note>[{found.low:+.3f}, {found.high:+.3f}]</span>"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _side(value: float) -> str:
    return "up" if value > 0 else "down" if value < 0 else "note"
