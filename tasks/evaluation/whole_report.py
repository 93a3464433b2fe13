"""Which report a partner gets: of classes, of numbers, of both, or the word that nothing can be compared.

Why: small test folds are real; a run must not fail because nothing in them can be measured. Runs: on the partner.
Source: own.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from data_contracts.catalogue import ENDPOINTS, REGRESSION_ENDPOINTS
from data_contracts.plan import Modality
from data_contracts.writing import read_table
from tasks.evaluation.metric_tables import read_metrics
from tasks.evaluation.partner_report import write_partner_report
from tasks.evaluation.regression_report import regression_part, write_regression_report
from tasks.exchange.durable_files import replace_whole

BASELINES = ("logistic", "boosted")


def report_of(
    scores: Path,
    *,
    arms: Sequence[str],
    modality: Modality,
    partner: str,
    prepared: Path,
    output: Path,
    seed: int,
    simulated_assays: bool,
) -> None:
    """Write a partner's report.

    Args:
        scores: Directory with the tables of each arm.
        arms: ``single``, ``federated``, perhaps ``pooled``; outside baselines join them for classes.
        modality: What was learnt.
        partner: The partner.
        prepared: Its prepared data.
        output: Directory for the report; ``uplift.json`` is always written.
        seed: Seed of the bootstrap.
        simulated_assays: Whether page and pictures must say that the assays are simulated.

    Raises:
        ContractViolation: If a table cannot be read.
    """
    numbers = None
    if modality != "classification":
        endpoints = read_table(prepared / "regression_endpoints.arrow", REGRESSION_ENDPOINTS)
        numbers = regression_part(
            scores,
            arms=arms,
            endpoints=endpoints,
            output=output,
            seed=seed,
            simulated_assays=simulated_assays,
        )
    if modality != "regression" and read_metrics(scores / "federated" / "metrics.arrow")[1].any():
        write_partner_report(
            scores,
            arms=(*arms, *(name for name in BASELINES if (scores / name / "metrics.arrow").exists())),
            partner=partner,
            endpoints=read_table(prepared / "endpoints.arrow", ENDPOINTS),
            output=output,
            seed=seed,
            simulated_assays=simulated_assays,
            regression=numbers,
        )
    elif numbers is not None:
        write_regression_report(numbers, partner=partner, output=output, simulated_assays=simulated_assays)
    else:
        write_nothing(output)


def write_nothing(output: Path) -> None:
    """Write the ``uplift.json`` of a partner without a single endpoint to compare."""
    nothing = {"n_endpoints": 0, "metrics": {}}
    replace_whole(output / "uplift.json", [json.dumps(nothing).encode()])
