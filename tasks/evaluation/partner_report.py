"""What a partner keeps of a run: a page, its uplift in numbers, a table per endpoint, and the pictures.

Why: a partner decides from its own figures whether joining paid; they never leave its directory.
Runs: on the partner. Source: own; arms, RIPtoP and tables as in MELLODDY's evaluation (Heyndrickx et al. 2023).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.calibration import fit_calibration, logits_of_probabilities
from tasks.evaluation.comparison import by_assay_type, distribution_difference, flips
from tasks.evaluation.conformal import LEVELS, ConformalQuality, conformal_quality, fit_conformal
from tasks.evaluation.further_metrics import FURTHER, FurtherMetrics, further_metrics
from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.metrics import METRICS, EndpointMetrics
from tasks.evaluation.pictures import NAMES, draw_endpoints, draw_uplift
from tasks.evaluation.regression_report import RegressionPart
from tasks.evaluation.regression_report import as_json as regression_json
from tasks.evaluation.report_page import ConformalRow, EndpointRow, ReportContent, render_report
from tasks.evaluation.report_pictures import draw_calibration, draw_conformal, draw_distribution
from tasks.evaluation.score_tables import CALIBRATION, Scores, read_scores
from tasks.evaluation.significance import SIGNIFICANCE, benjamini_yekutieli, delong_p_values
from tasks.evaluation.uplift import Arm, Uplift, compare
from tasks.exchange.durable_files import replace_whole

HEADLINE = "auprc"
FURTHER_NAMES = {
    "auprc_calibrated": "AUPRC at 10 % actives",
    "brier": "Brier score",
    "ece": "calibration error",
    "kappa": "Cohen's kappa",
    "bedroc": "BEDROC (alpha 20)",
}

Counted = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ArmScores:
    """One arm of the partner: metrics and scores of the test fold, and the same labels calibrated."""

    metrics: EndpointMetrics
    test: Scores
    calibrated: npt.NDArray[np.float64]
    further: FurtherMetrics
    conformal: tuple[ConformalQuality, ...]


def write_partner_report(
    scores: Path,
    *,
    arms: Sequence[str],
    partner: str,
    endpoints: Any,
    output: Path,
    seed: int,
    simulated_assays: bool,
    regression: RegressionPart | None = None,
) -> Uplift:
    """Compare a partner's arms and write its report.

    Args:
        scores: Directory with, per arm, ``metrics.arrow`` and ``scores.arrow`` of the test fold and, in
            ``calibration/``, the scores of the validation fold.
        arms: ``single``, ``federated``, perhaps ``pooled``, ``logistic`` and ``boosted``.
        partner: The partner, for page and pictures.
        endpoints: Its table of endpoints (contract *endpoints*).
        output: Directory for ``report.html``, ``uplift.json``, ``endpoints.parquet`` and the pictures.
        seed: Seed of the bootstrap.
        simulated_assays: Whether page and pictures must say that the assays are simulated.
        regression: What the page says about numbers too.

    Returns:
        The uplift over the endpoints that count.

    Raises:
        ContractViolation: If a table cannot be read, or no endpoint counts.
    """
    counted = read_metrics(scores / "federated" / "metrics.arrow")[1]
    found = {arm: _read_arm(scores / arm) for arm in arms}
    uplift = compare(
        {cast("Arm", arm): read.metrics for arm, read in found.items()},
        counted,
        rng=np.random.default_rng(seed),
        groups=(np.array(endpoints.column("assay_id").to_pylist(), dtype=np.str_),),
    )
    adjusted = _adjusted_p_values(found["single"].test, found["federated"].test, counted)
    table = _endpoint_table(found, endpoints, counted=counted, adjusted=adjusted)
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, output / "endpoints.parquet", compression="zstd")
    content = _content(
        found,
        endpoints,
        counted=counted,
        adjusted=adjusted,
        uplift=uplift,
        partner=partner,
        simulated_assays=simulated_assays,
        pictures={name: output / f"{name}.png" for name in PICTURES},
    )
    _draw(content, found, counted=counted)
    figures = as_json(uplift)
    if regression is not None:
        content = dataclasses.replace(content, more=regression.section)
        figures |= regression_json(regression)
    replace_whole(output / "report.html", [render_report(content).encode()])
    replace_whole(output / "uplift.json", [json.dumps(figures, indent=2, sort_keys=True).encode()])
    return uplift


PICTURES = ("uplift", "endpoints", "distribution", "calibration", "conformal")


def _read_arm(directory: Path) -> ArmScores:
    metrics, _ = read_metrics(directory / "metrics.arrow")
    n_endpoints = len(metrics.n_active)
    test = read_scores(directory / "scores.arrow")
    validation = read_scores(directory / CALIBRATION / "scores.arrow")
    known, logit = (logits_of_probabilities(part.probability) for part in (validation, test))
    fitted = fit_calibration(validation.endpoint, validation.label, known, n_endpoints=n_endpoints)
    thresholds = fit_conformal(validation.endpoint, validation.label, known, n_endpoints=n_endpoints)
    calibrated = fitted.apply(test.endpoint, logit)
    return ArmScores(
        metrics=metrics,
        test=test,
        calibrated=calibrated,
        further=further_metrics(test.endpoint, test.label, calibrated, n_endpoints=n_endpoints),
        conformal=tuple(
            conformal_quality(
                thresholds, test.endpoint, test.label, logit, level=level, n_endpoints=n_endpoints
            )
            for level in range(len(LEVELS))
        ),
    )


def _adjusted_p_values(single: Scores, federated: Scores, counted: Counted) -> npt.NDArray[np.float64]:
    p_values = delong_p_values(
        single.endpoint,
        single.label,
        better=federated.probability,
        worse=single.probability,
        n_endpoints=len(counted),
    )
    return benjamini_yekutieli(np.where(counted, p_values, np.nan))


def _endpoint_table(
    found: Mapping[str, ArmScores], endpoints: Any, *, counted: Counted, adjusted: npt.NDArray[np.float64]
) -> Any:
    """One row per endpoint with every arm's metrics; what the page leaves out."""
    columns: dict[str, Any] = {
        "endpoint": endpoints.column("endpoint_id"),
        "assay": endpoints.column("assay_id"),
        "assay_type": endpoints.column("assay_type"),
        "counted": pa.array(counted),
        "n_active": pa.array(found["federated"].metrics.n_active),
        "n_inactive": pa.array(found["federated"].metrics.n_inactive),
        "adjusted_p": pa.array(adjusted, from_pandas=True),
    }
    for arm, read in found.items():
        values = {name: getattr(read.metrics, name) for name in METRICS}
        values |= {name: getattr(read.further, name) for name in FURTHER}
        for level, quality in zip(LEVELS, read.conformal, strict=True):
            values |= {f"{name}_{level:g}": column for name, column in dataclasses.asdict(quality).items()}
        columns |= {f"{arm}_{name}": pa.array(column, from_pandas=True) for name, column in values.items()}
    return pa.table(columns)


def _content(
    found: Mapping[str, ArmScores],
    endpoints: Any,
    *,
    counted: Counted,
    adjusted: npt.NDArray[np.float64],
    uplift: Uplift,
    partner: str,
    simulated_assays: bool,
    pictures: Mapping[str, Path],
) -> ReportContent:
    values = {arm: getattr(read.metrics, HEADLINE)[counted] for arm, read in found.items()}
    ids, types = (
        np.array(endpoints.column(name).to_pylist(), dtype=object)[counted]
        for name in ("endpoint_id", "assay_type")
    )
    gain = np.argsort(values["single"] - values["federated"], kind="stable")
    labels = (found["federated"].metrics.n_active + found["federated"].metrics.n_inactive)[counted]
    return ReportContent(
        partner=partner,
        simulated_assays=simulated_assays,
        uplift=uplift,
        headline=HEADLINE,
        types=by_assay_type(values, list(types), metric=HEADLINE),
        flips=flips(values["single"], values["federated"]),
        further={
            FURTHER_NAMES[name]: {
                arm: float(np.nanmean(getattr(read.further, name)[counted])) for arm, read in found.items()
            }
            for name in FURTHER
        },
        conformal=[row for arm, read in found.items() for row in _conformal_rows(arm, read, counted)],
        endpoints=[
            EndpointRow(
                endpoint=ids[place],
                n_test=int(labels[place]),
                single=float(values["single"][place]),
                federated=float(values["federated"][place]),
                adjusted_p=float(adjusted[counted][place]),
            )
            for place in gain
        ],
        n_significant=int(np.sum(adjusted[counted] < SIGNIFICANCE)),
        pictures=pictures,
    )


def _conformal_rows(arm: str, read: ArmScores, counted: Counted) -> list[ConformalRow]:
    return [
        ConformalRow(
            arm=arm,
            promised=1 - level,
            **{
                name: float(np.nanmean(column[counted]))
                for name, column in dataclasses.asdict(quality).items()
            },
        )
        for level, quality in zip(LEVELS, read.conformal, strict=True)
    ]


def _draw(content: ReportContent, found: Mapping[str, ArmScores], *, counted: Counted) -> None:
    simulated = content.simulated_assays
    pictures = content.pictures
    draw_uplift(pictures["uplift"], {content.partner: content.uplift}, simulated_assays=simulated)
    single, federated = (getattr(found[arm].metrics, HEADLINE)[counted] for arm in ("single", "federated"))
    draw_endpoints(pictures["endpoints"], single, federated, simulated_assays=simulated)
    draw_distribution(
        pictures["distribution"],
        distribution_difference(single, federated),
        metric=NAMES[HEADLINE],
        simulated_assays=simulated,
    )
    test = found["federated"].test
    shown = counted[test.endpoint]
    curves = {"as trained": test.probability, "calibrated": found["federated"].calibrated}
    draw_calibration(
        pictures["calibration"],
        {name: (values[shown], test.label[shown]) for name, values in curves.items()},
        simulated_assays=simulated,
    )
    rows = content.conformal
    draw_conformal(
        pictures["conformal"],
        LEVELS,
        {arm: [row.efficiency for row in rows if row.arm == arm] for arm in found},
        {
            arm: [(row.validity_active + row.validity_inactive) / 2 for row in rows if row.arm == arm]
            for arm in found
        },
        simulated_assays=simulated,
    )


def as_json(uplift: Uplift) -> dict[str, Any]:
    """The uplift as plain JSON."""
    return {
        "n_endpoints": uplift.n_endpoints,
        "metrics": {name: dataclasses.asdict(metric) for name, metric in uplift.metrics.items()},
    }
