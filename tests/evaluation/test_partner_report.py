"""A partner's report: every table adds up, the page needs nothing else, and damaged tables are refused."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import ContractViolation
from tasks.evaluation.comparison import BARS, GRID, by_assay_type, distribution_difference, flips
from tasks.evaluation.metric_tables import metrics_table, write_table
from tasks.evaluation.metrics import endpoint_metrics
from tasks.evaluation.partner_report import PICTURES, write_partner_report
from tasks.evaluation.score_tables import CALIBRATION, Scores, scores_table

N_ENDPOINTS = 6
ARMS = ("single", "federated", "logistic")
SKILL = {"single": 1.0, "federated": 2.5, "logistic": 0.5}
ENDPOINTS = pa.table(
    {
        "endpoint_id": ["<b>A0", *(f"A{number}" for number in range(1, N_ENDPOINTS))],
        "assay_id": ["<b>A0", "A1", "A1", "A3", "A4", "A5"],
        "assay_type": ["PANEL", "ADME"] * 3,
    }
)


def _scores(rng, label, endpoint, *, skill):
    logit = skill * (label - 0.5) + rng.normal(size=len(label))
    return Scores(np.arange(len(label)), endpoint, label.astype(np.int8), 1 / (1 + np.exp(-logit)))


@pytest.fixture
def scores(tmp_path):
    """Scores of three arms of rising skill; the last endpoint does not count."""
    rng = np.random.default_rng(2)
    counted = np.arange(N_ENDPOINTS) < N_ENDPOINTS - 1
    for fold in ("test", "validation"):
        endpoint = np.repeat(np.arange(N_ENDPOINTS), 60)
        label = rng.integers(0, 2, len(endpoint))
        for arm in ARMS:
            directory = tmp_path / arm if fold == "test" else tmp_path / arm / CALIBRATION
            directory.mkdir(parents=True, exist_ok=True)
            found = _scores(rng, label, endpoint, skill=SKILL[arm])
            write_table(directory / "scores.arrow", scores_table(found))
            metrics = endpoint_metrics(endpoint, label, found.probability, n_endpoints=N_ENDPOINTS)
            write_table(directory / "metrics.arrow", metrics_table(metrics, counted))
    return tmp_path


def _write(scores, output, *, simulated_assays=False):
    return write_partner_report(
        scores,
        arms=ARMS,
        partner="partner & sons",
        endpoints=ENDPOINTS,
        output=output,
        seed=0,
        simulated_assays=simulated_assays,
    )


def test_the_page_holds_everything_and_escapes_names(scores, tmp_path):
    uplift = _write(scores, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("src='data:image/png;base64,") == len(PICTURES)
    assert not re.search(r"(src|href)='?(?!data:)[a-z/]", page)
    assert "<script" not in page
    assert "partner &amp; sons" in page
    assert "&lt;b&gt;A0" in page
    assert "<b>A0" not in page
    assert "Simulated assays" not in page
    assert f"{uplift.metrics['auprc'].uplift.value:+.3f}" in page
    assert uplift.metrics["auprc"].uplift.low > 0
    assert set(uplift.metrics["auprc"].arms) == set(ARMS)
    assert json.loads((tmp_path / "out" / "uplift.json").read_bytes())["n_endpoints"] == N_ENDPOINTS - 1


def test_simulated_assays_are_said_on_top_of_the_page(scores, tmp_path):
    _write(scores, tmp_path / "out", simulated_assays=True)
    assert "say nothing about any drug" in (tmp_path / "out" / "report.html").read_text()


def test_the_table_has_every_endpoint_and_arm(scores, tmp_path):
    _write(scores, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "endpoints.parquet")
    assert table.column("endpoint").to_pylist() == ENDPOINTS.column("endpoint_id").to_pylist()
    for arm in ARMS:
        for name in ("auroc", "auprc", "log_loss", "brier", "kappa", "efficiency_0.2", "validity_active_0.1"):
            assert table.column(f"{arm}_{name}").null_count == 0, (arm, name)
    assert table.column("adjusted_p").to_pylist()[-1] is None  # not counted, so not tested
    efficiency = [
        np.mean(table.column(f"{arm}_efficiency_0.2").to_numpy()) for arm in ("single", "federated")
    ]
    assert efficiency[1] > efficiency[0]


def test_an_arm_without_scores_is_refused(scores, tmp_path):
    (scores / "federated" / CALIBRATION / "scores.arrow").unlink()
    with pytest.raises(ContractViolation, match="score the model again"):
        _write(scores, tmp_path / "out")


def test_assay_types_are_means_of_their_endpoints():
    values = {"single": np.array([0.5, 0.6, 0.9]), "federated": np.array([0.75, 0.6, 0.8])}
    rows = by_assay_type(values, ["ADME", "ADME", "PANEL"], metric="auprc")
    assert [(row.assay_type, row.n_endpoints) for row in rows] == [("ADME", 2), ("PANEL", 1)]
    assert rows[0].uplift == pytest.approx(0.125)
    assert rows[0].riptop == pytest.approx((0.25 / 0.5 + 0) / 2)
    assert rows[0].improved == 0.75
    assert rows[1].uplift == pytest.approx(-0.1)


def test_flips_count_crossings_in_both_directions():
    rows = flips(np.array([0.45, 0.65, 0.85]), np.array([0.75, 0.55, 0.85]))
    assert [(row.lifted, row.fallen) for row in rows] == [(1, 0), (1, 1), (1, 0), (0, 0), (0, 0)]
    assert [row.bar for row in rows] == list(BARS)


def test_a_distribution_moved_upwards_lies_below_the_line():
    single = np.linspace(0.2, 0.6, 50)
    difference = distribution_difference(single, single + 0.1)
    assert difference.min() < -0.2
    assert difference.max() <= 0
    assert difference[[0, -1]].tolist() == [0, 0]
    assert len(difference) == len(GRID)
