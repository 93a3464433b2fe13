"""A partner without a single endpoint to compare spoils nobody's run."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np

from flows.cli.run import _report as print_report
from flows.finishing import NOTHING_COMPARED, _report
from flows.partner import _installed
from flows.reporting import _bars
from flows.run_directory import RunDirectory
from tasks.evaluation.metric_tables import metrics_table, write_table
from tasks.evaluation.metrics import endpoint_metrics
from tasks.local_training import baseline

COMPARED = {
    "n_endpoints": 12,
    "metrics": {
        metric: {
            "arms": {arm: {"value": value} for arm, value in (("single", 0.6), ("federated", 0.7))},
            "uplift": {"value": 0.1},
            "riptop": {"value": 0.25},
        }
        for metric in ("auroc", "auprc")
    },
}


def test_a_partner_whose_endpoints_all_lack_labels_gets_a_result_that_says_so(tmp_path):
    metrics = endpoint_metrics(
        np.array([0, 0, 1]), np.array([1, 0, 1], np.int8), np.array([0.9, 0.2, 0.7]), n_endpoints=2
    )
    write_table(tmp_path / "federated" / "metrics.arrow", metrics_table(metrics, np.zeros(2, np.bool_)))
    site = SimpleNamespace(name="partner-a", results=tmp_path / "results")
    asyncio.run(_report(None, site, SimpleNamespace(scores=tmp_path)))
    assert json.loads((tmp_path / "results" / "uplift.json").read_bytes()) == NOTHING_COMPARED
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["uplift.json"]


def test_the_table_shows_such_a_partner_beside_the_others_and_a_control_by_name(tmp_path, capsys):
    run = RunDirectory(tmp_path / "runs" / "one")
    for name, uplift in (("partner-a", COMPARED), ("partner-b", NOTHING_COMPARED)):
        place = run.path / "partners" / name / "results"
        place.mkdir(parents=True)
        (place / "uplift.json").write_text(json.dumps(uplift))
    data = {"name": "x", "simulated_assays": True, "control": "permuted-labels"}
    run.write_result({"data": data, "models": {"partner-a": "models:/partner-a-qsar/1"}})
    returned = print_report(run)
    printed = capsys.readouterr().out
    assert "CONTROL" in printed
    assert "say nothing about any drug" in printed
    (first,) = [line.split() for line in printed.splitlines() if line.startswith("partner-a ")][:1]
    assert first == ["partner-a", "12", "0.600", "0.700", "0.600", "0.700", "0.100", "+25.0", "%"]
    (second,) = [line.split() for line in printed.splitlines() if line.startswith("partner-b ")]
    assert second == ["partner-b", "0", "-", "-", "-", "-", "-", "-"]
    assert returned["partners"]["partner-b"]["n_endpoints"] == 0


def test_a_baseline_without_its_library_is_skipped_by_name_and_the_others_run(monkeypatch, caplog):
    monkeypatch.setitem(baseline.LIBRARY, "boosted", "no_such_library")
    partner = SimpleNamespace(
        baselines=("logistic", "boosted"), site=SimpleNamespace(name="partner-a", results=None)
    )
    with caplog.at_level("WARNING", logger="motet"):
        assert _installed(partner) == ("logistic",)
    (message,) = caplog.messages
    assert "partner-a: baseline 'boosted' is skipped" in message
    assert "motet[baselines]" in message


def test_the_consortiums_bars_are_shown_only_if_all_of_them_were_announced():
    bars = (0.5, 0.6, 0.7, 0.8, 0.9)
    test = {f"test/shares/auprc_{way}_{bar}": 0.25 for bar in bars for way in ("lifted", "fallen")}
    assert "| 0.8 | 0.2500 | 0.2500 |" in _bars(test)
    test.pop("test/shares/auprc_lifted_0.5")
    assert _bars(test) == []
