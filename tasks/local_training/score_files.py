"""The files that scoring leaves: metrics per endpoint and scores per label, classes and numbers apart.

Why: a reader of classes need not know that numbers exist. Runs: on the partner, in the training child. Source: own.
"""

from pathlib import Path

from tasks.evaluation.metric_tables import metrics_table, regression_metrics_table, write_table
from tasks.evaluation.score_tables import regression_scores_table, scores_table
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.scoring import Measured, Predictions

METRICS_FILE, SCORES_FILE = "metrics.arrow", "scores.arrow"


def write_scores(
    output: Path, dataset: PreparedDataset, predictions: Predictions, measured: Measured
) -> tuple[Path | None, Path | None]:
    """Write the tables of one partner's predictions.

    Args:
        output: Directory.
        dataset: The partner's data; its regression endpoints are the last.
        predictions: What the model says.
        measured: How good it is.

    Returns:
        The table of classification metrics and the one of regression metrics; None where the data have no such endpoint.
    """
    n_classes = int((~dataset.is_regression).sum())
    classes = numbers = None
    if n_classes or measured.numbers is None:
        classes = output / METRICS_FILE
        write_table(classes, metrics_table(measured.classes, measured.counted).slice(0, n_classes))
        write_table(output / SCORES_FILE, scores_table(predictions.classes))
    if predictions.numbers is not None and measured.numbers is not None:
        numbers = output / f"regression_{METRICS_FILE}"
        write_table(numbers, regression_metrics_table(measured.numbers, measured.numbers_counted))
        write_table(output / f"regression_{SCORES_FILE}", regression_scores_table(predictions.numbers))
    return classes, numbers
