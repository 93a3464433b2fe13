"""What tells a consumer how far a prediction can be believed: calibration, conformal thresholds, known environments.

Why: a bare probability of a network is too sure of itself, and says nothing of a molecule unlike any it was trained
on. Runs: on the partner, for its own model only. Source: own; tasks/evaluation/calibration.py and conformal.py.

The arrays travel inside the partner's model, so they hold no score of a single molecule but order statistics, and
which fingerprint bits its training molecules set. A trunk, which others receive, never has them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_contracts.plan import Modality
from tasks.evaluation.calibration import fit_calibration, logits_of_probabilities
from tasks.evaluation.conformal import fit_conformal
from tasks.evaluation.regression_conformal import fit_half_widths
from tasks.evaluation.score_tables import Scores, read_regression_scores, read_scores
from tasks.local_training.dataset import TRAINING_FOLDS, VALIDATION_FOLDS, PreparedDataset
from tasks.local_training.parameters import N_BITS, Parameters, read_parameters
from tasks.local_training.regression_heads import deviations

DOMAIN_QUANTILE = 0.05
"""Share of validation molecules that count as outside: no promise, a yardstick."""


@dataclass(frozen=True)
class CalibrationInputs:
    """Where to learn reliability from.

    Attributes:
        scores: Scores of a fold that the scoring model was not trained on, ``scores.arrow``; of numbers,
            ``regression_scores.arrow`` beside it.
        prepared: The partner's prepared data.
        modality: Which endpoints the model has.
        head: Its head, which knows the deviation of its regression endpoints; not read without any.
        n_bits: Length of its fingerprints.
        scored_folds: That fold.
        scorer_folds: What the scoring model was trained on.
        model_folds: What the model that will carry the reliability was trained on: the same, or more.
        described: All this in words, for the model's card.
    """

    scores: Path
    prepared: Path
    modality: Modality = "classification"
    head: Path | None = None
    n_bits: int = N_BITS
    scored_folds: tuple[int, ...] = VALIDATION_FOLDS
    scorer_folds: tuple[int, ...] = TRAINING_FOLDS
    model_folds: tuple[int, ...] = TRAINING_FOLDS
    described: str = "the validation fold, by this model"


def reliability_of(inputs: CalibrationInputs) -> Parameters:
    """Calibrate a model on scores of a fold that was held out.

    Returns:
        The arrays of ``bundle.reliability_layout``, float32.

    Raises:
        ContractViolation: If the scores or the prepared data cannot be read.
    """
    dataset = PreparedDataset.open(inputs.prepared, modality=inputs.modality)
    scores, n_classes = _class_scores(inputs), int((~dataset.is_regression).sum())
    logit = logits_of_probabilities(scores.probability)
    calibration = fit_calibration(scores.endpoint, scores.label, logit, n_endpoints=n_classes)
    thresholds = fit_conformal(scores.endpoint, scores.label, logit, n_endpoints=n_classes)
    known = known_bits(dataset, inputs.model_folds, n_bits=inputs.n_bits)
    yardstick = known_bits(dataset, inputs.scorer_folds, n_bits=inputs.n_bits)
    shares = known_shares(dataset, yardstick, rows=dataset.rows(inputs.scored_folds))
    arrays = _intervals(inputs, dataset) | {
        "calibration.slope": calibration.slope,
        "calibration.offset": calibration.offset,
        "conformal.active": thresholds.active,
        "conformal.inactive": thresholds.inactive,
        "domain.known": known,
        "domain.least_share": np.quantile(shares, [DOMAIN_QUANTILE]) if len(shares) else np.zeros(1),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _class_scores(inputs: CalibrationInputs) -> Scores:
    if inputs.modality != "regression":
        return read_scores(inputs.scores)
    nothing = np.zeros(0, dtype=np.int64)
    return Scores(nothing, nothing, nothing.astype(np.int8), np.zeros(0))


def _intervals(inputs: CalibrationInputs, dataset: PreparedDataset) -> dict[str, npt.NDArray[np.float64]]:
    """Half-widths of the regression endpoints; nothing where there are none."""
    if inputs.head is None or dataset.regression is None:
        return {}
    scores = read_regression_scores(inputs.scores.with_name(f"regression_{inputs.scores.name}"))
    deviation = deviations(read_parameters(inputs.head))[dataset.regression.head_row]
    return {"interval.half_width": fit_half_widths(scores, deviation=deviation)}


def known_bits(
    dataset: PreparedDataset, folds: tuple[int, ...] = TRAINING_FOLDS, *, n_bits: int = N_BITS
) -> npt.NDArray[np.bool_]:
    """Fingerprint bits that a training molecule sets, shape ``(n_bits,)``."""
    known = np.zeros(n_bits, dtype=bool)
    known[dataset.used_bits(dataset.training_rows(folds))] = True
    return known


def known_shares(
    dataset: PreparedDataset, known: npt.NDArray[np.bool_], *, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Share of each molecule's set bits that are known, shape ``(n_rows,)``."""
    bits, starts = dataset.fingerprints_of(rows)
    if not len(rows):
        return np.empty(0)
    shares: npt.NDArray[np.float64] = np.add.reduceat(known[bits].astype(np.float64), starts) / np.diff(
        starts, append=len(bits)
    )
    return shares
