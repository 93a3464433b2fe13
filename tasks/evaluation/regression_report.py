"""The part of a partner's report about numbers: arms, intervals, endpoints; a page of its own where there are no classes.

Why: a chemist reads errors in log units, not areas under curves. Runs: on the partner; it never leaves it. Source: own.
"""

import dataclasses
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.conformal import LEVELS
from tasks.evaluation.metric_tables import read_regression_metrics
from tasks.evaluation.metrics import REGRESSION_METRICS
from tasks.evaluation.pictures import ARMS, NAMES, draw_endpoints
from tasks.evaluation.regression_conformal import IntervalQuality, fit_half_widths, interval_quality
from tasks.evaluation.regression_metrics import RegressionMetrics
from tasks.evaluation.report_page import LISTED, arms_table, figure, lead_of, page, side_of
from tasks.evaluation.score_tables import CALIBRATION, RegressionScores, read_regression_scores
from tasks.evaluation.uplift import Arm, Uplift, compare_regression
from tasks.exchange.durable_files import replace_whole

HEADLINE = "rmse"
PICTURE, TABLE = "regression.png", "regression_endpoints.parquet"

Counted = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RegressionPart:
    """What the page says about numbers.

    Attributes:
        uplift: The arms over the regression endpoints that count.
        section: HTML.
    """

    uplift: Uplift
    section: Sequence[str]


@dataclass(frozen=True)
class _ArmScores:
    metrics: RegressionMetrics
    intervals: tuple[IntervalQuality, ...]


def regression_part(
    scores: Path,
    *,
    arms: Sequence[str],
    endpoints: Any,
    output: Path,
    seed: int,
    simulated_assays: bool,
) -> RegressionPart | None:
    """Compare a partner's arms on its regression endpoints; write table and picture.

    Args:
        scores: Directory with, per arm, the regression metrics and scores of the test fold and, in ``calibration/``,
            the scores of the validation fold.
        arms: ``single``, ``federated``, perhaps ``pooled``.
        endpoints: Table of the contract *regression_endpoints*.
        output: Directory for ``regression_endpoints.parquet`` and ``regression.png``.
        seed: Seed of the bootstrap.
        simulated_assays: Whether the picture must say that the assays are simulated.

    Returns:
        The comparison; None if no regression endpoint counts.

    Raises:
        ContractViolation: If a table cannot be read.
    """
    counted = read_regression_metrics(scores / "federated" / "regression_metrics.arrow")[1]
    if not counted.any():
        return None
    found = {arm: _read_arm(scores / arm) for arm in arms}
    uplift = compare_regression(
        {cast("Arm", arm): read.metrics for arm, read in found.items()},
        counted,
        rng=np.random.default_rng(seed),
    )
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(found, endpoints, counted=counted), output / TABLE, compression="zstd")
    single, federated = (getattr(found[arm].metrics, HEADLINE)[counted] for arm in ("single", "federated"))
    draw_endpoints(output / PICTURE, single, federated, metric=HEADLINE, simulated_assays=simulated_assays)
    ids = np.array(endpoints.column("endpoint_id").to_pylist(), dtype=object)[counted]
    section = [
        *lead_of(uplift, HEADLINE, kind="regression endpoints"),
        *arms_table(uplift, title="Numbers: arms"),
        figure(output / PICTURE, "One dot a regression endpoint"),
        *_intervals(found, counted),
        *_lists(ids, single, federated, found["federated"].metrics.n_uncensored[counted]),
    ]
    return RegressionPart(uplift, section)


def write_regression_report(
    part: RegressionPart, *, partner: str, output: Path, simulated_assays: bool
) -> None:
    """Write ``report.html`` and ``uplift.json`` of a run that learnt numbers alone."""
    replace_whole(
        output / "report.html", [page(partner, part.section, simulated_assays=simulated_assays).encode()]
    )
    content = {"n_endpoints": 0, "metrics": {}, **as_json(part)}
    replace_whole(output / "uplift.json", [json.dumps(content, indent=2, sort_keys=True).encode()])


def as_json(part: RegressionPart) -> dict[str, Any]:
    """The regression uplift as plain JSON: ``n_regression_endpoints`` and ``regression_metrics``."""
    return {
        "n_regression_endpoints": part.uplift.n_endpoints,
        "regression_metrics": {
            name: dataclasses.asdict(metric) for name, metric in part.uplift.metrics.items()
        },
    }


def _read_arm(directory: Path) -> _ArmScores:
    metrics, _ = read_regression_metrics(directory / "regression_metrics.arrow")
    test = read_regression_scores(directory / "regression_scores.arrow")
    known = read_regression_scores(directory / CALIBRATION / "regression_scores.arrow")
    n_endpoints = len(metrics.n_values)
    widths = fit_half_widths(known, deviation=_deviation(known, test, n_endpoints))
    return _ArmScores(metrics, tuple(interval_quality(width, test) for width in widths))


def _deviation(known: RegressionScores, test: RegressionScores, n_endpoints: int) -> npt.NDArray[np.float64]:
    """The model's deviation of each endpoint that has scores; 1 where it has none and needs none."""
    deviation = np.ones(n_endpoints)
    for scores in (known, test):
        deviation[scores.endpoint] = scores.deviation
    return deviation


def _table(found: Mapping[str, _ArmScores], endpoints: Any, *, counted: Counted) -> Any:
    """One row per regression endpoint with every arm's metrics and intervals."""
    columns: dict[str, Any] = {
        "endpoint": endpoints.column("endpoint_id"),
        "assay_type": endpoints.column("assay_type"),
        "counted": pa.array(counted),
        "n_values": pa.array(found["federated"].metrics.n_values),
        "n_uncensored": pa.array(found["federated"].metrics.n_uncensored),
    }
    for arm, read in found.items():
        values = {name: getattr(read.metrics, name) for name in REGRESSION_METRICS}
        for level, quality in zip(LEVELS, read.intervals, strict=True):
            values |= {f"{name}_{level:g}": column for name, column in dataclasses.asdict(quality).items()}
        columns |= {f"{arm}_{name}": pa.array(column, from_pandas=True) for name, column in values.items()}
    return pa.table(columns)


def _intervals(found: Mapping[str, _ArmScores], counted: Counted) -> Iterable[str]:
    yield "<h2>How far a predicted number can be believed</h2><table><tr><th>arm<th>promised<th>kept"
    yield "<th>width of the interval</tr>"
    for arm, read in found.items():
        for level, quality in zip(LEVELS, read.intervals, strict=True):
            validity = float(np.nanmean(quality.validity[counted]))
            width = float(np.nanmean(quality.width[counted]))
            yield (
                f"<tr><td>{html.escape(ARMS[arm][2])}<td>{100 * (1 - level):.0f} %<td>{100 * validity:.1f} %"
                f"<td>{width:.2f}</tr>"
            )
    yield "</table><p class=note>Conformal intervals, calibrated on measured values of the validation fold; an endpoint "
    yield "with fewer than 20 of them borrows those of all. Width counts only while the promise is kept.</p>"


def _lists(
    ids: npt.NDArray[np.object_],
    single: npt.NDArray[np.float64],
    federated: npt.NDArray[np.float64],
    n_test: npt.NDArray[np.int64],
) -> Iterable[str]:
    order = np.argsort(federated - single, kind="stable")
    lists = {
        "Largest gains": [place for place in order if federated[place] < single[place]],
        "Largest losses": [place for place in order[::-1] if federated[place] > single[place]],
    }
    for title, places in lists.items():
        yield f"<h2>{title}, numbers</h2><table><tr><th>endpoint<th>test values<th>{NAMES[HEADLINE]} single"
        yield "<th>federated<th>change</tr>"
        for place in places[:LISTED]:
            change = federated[place] - single[place]
            yield (
                f"<tr><td>{html.escape(ids[place])}<td>{n_test[place]}<td>{single[place]:.3f}"
                f"<td>{federated[place]:.3f}<td class={side_of(-change)}>{change:+.3f}</tr>"
            )
        yield "</table>"
    yield f"<p class=note>All regression endpoints stand in <code>{TABLE}</code>.</p>"
