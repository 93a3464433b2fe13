"""What a partner keeps of a run: its uplift in numbers, a table per endpoint, and two pictures.

Why: a partner decides from its own figures whether joining paid; they never leave its directory.
Runs: on the partner. Source: own; the arms and RIPtoP as in MELLODDY's evaluation (Heyndrickx et al. 2023).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.pictures import draw_endpoints, draw_uplift
from tasks.evaluation.uplift import Arm, Uplift, compare
from tasks.exchange.durable_files import replace_whole

HEADLINE = "auprc"


def write_partner_report(
    tables: Mapping[str, Path],
    *,
    partner: str,
    endpoint_ids: list[str],
    output: Path,
    seed: int,
    simulated_assays: bool,
) -> Uplift:
    """Compare a partner's arms and write its report.

    Args:
        tables: Per arm (``single``, ``federated``, perhaps ``pooled``) the table of metrics on the test fold.
        partner: The partner, for the pictures.
        endpoint_ids: Names of its endpoints, shape ``(n_endpoints,)``.
        output: Directory for ``uplift.json``, ``endpoints.parquet``, ``uplift.png`` and ``endpoints.png``.
        seed: Seed of the bootstrap.
        simulated_assays: Whether the pictures must say that the assays are simulated.

    Returns:
        The uplift over the endpoints that count.

    Raises:
        ContractViolation: If no endpoint counts.
    """
    found = {arm: read_metrics(path) for arm, path in tables.items()}
    arms = {cast("Arm", arm): metrics for arm, (metrics, _) in found.items()}
    counted = found["federated"][1]
    uplift = compare(arms, counted, rng=np.random.default_rng(seed))
    columns = {
        "endpoint": pa.array(endpoint_ids),
        "counted": pa.array(counted),
        "n_active": pa.array(arms["federated"].n_active),
        "n_inactive": pa.array(arms["federated"].n_inactive),
    } | {
        f"{arm}_{name}": pa.array(getattr(metrics, name), from_pandas=True)
        for arm, metrics in arms.items()
        for name in METRICS
    }
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), output / "endpoints.parquet", compression="zstd")
    draw_uplift(output / "uplift.png", {partner: uplift}, simulated_assays=simulated_assays)
    draw_endpoints(
        output / "endpoints.png",
        getattr(arms["single"], HEADLINE)[counted],
        getattr(arms["federated"], HEADLINE)[counted],
        simulated_assays=simulated_assays,
    )
    replace_whole(output / "uplift.json", [json.dumps(as_json(uplift), indent=2, sort_keys=True).encode()])
    return uplift


def as_json(uplift: Uplift) -> dict[str, Any]:
    """The uplift as plain JSON."""
    return {
        "n_endpoints": uplift.n_endpoints,
        "metrics": {name: dataclasses.asdict(metric) for name, metric in uplift.metrics.items()},
    }
