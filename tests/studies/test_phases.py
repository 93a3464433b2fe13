"""No phase measures what it trains on, and tuning never sees the test fold."""

from typing import get_args

import pytest

from data_contracts.errors import AgreementViolation
from data_contracts.plan import RoundPlan
from data_contracts.references import BlobReference
from tasks.studies import evaluation as study
from tasks.studies.evaluation import EVALUATION, EvaluationParameters
from tasks.studies.phases import FOLD_OF, MEASURED, TRAINING_FOLDS, Phase, spoilt_folds

PHASES = get_args(Phase)
MODEL = BlobReference(sha256="ab" * 32, bytes=10, contract="shared-model@1")


def _plan(phase, split):
    parameters = EvaluationParameters(split=split, after_round=1, arms=1, phase=phase)
    return RoundPlan(
        run_id="run-1",
        round=2,
        study=study.NAME,
        cohort=("a", "b", "c"),
        threshold=2,
        lanes=study.lanes(parameters),
        model_in=MODEL,
        parameters=parameters.model_dump(),
    )


def test_the_folds_have_the_roles_that_melloddy_gave_them():
    """PH1 trains without 0 and 4 and chooses on 4, PH2 trains on all but 0 and reports on it, PH3 trains on all."""
    assert TRAINING_FOLDS["tune"] == (1, 2, 3)
    assert TRAINING_FOLDS["report"] == (1, 2, 3, 4)
    assert TRAINING_FOLDS["final"] == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("phase", PHASES)
def test_no_phase_measures_a_fold_that_it_trains_on(phase):
    assert not {FOLD_OF[split] for split in MEASURED[phase]} & set(TRAINING_FOLDS[phase])
    assert spoilt_folds(phase, phase) == ()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_partner_answers_only_what_the_phase_may_measure(phase, split):
    plan = _plan(phase, split)
    if split in MEASURED[phase]:
        EVALUATION.accept(plan)
    else:
        with pytest.raises(AgreementViolation, match=f"measures the {split} fold in phase '{phase}'"):
            EVALUATION.accept(plan)
