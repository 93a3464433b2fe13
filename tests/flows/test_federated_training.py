"""Which round's model the consortium keeps."""

from types import SimpleNamespace

import pytest

from flows.federated_training import _best_round, _is_over, _validation
from flows.reporting import validated_round


@pytest.mark.parametrize(
    ("auprc_by_round", "expected"),
    [
        ({0: 0.9, 1: 0.5, 2: 0.7, 3: 0.6}, 2),  # the untrained model of round 0 is no candidate
        ({1: 0.7, 2: 0.7, 3: 0.6}, 1),  # of equals the first: it trained less
        ({1: None, 2: 0.4, 3: None}, 2),
        ({1: None, 2: None, 3: None}, 3),  # nothing measured: the last
    ],
)
def test_the_round_of_the_highest_summed_validation_auprc_is_kept(auprc_by_round, expected):
    validation = {
        number: {} if value is None else {"auprc": value} for number, value in auprc_by_round.items()
    }
    assert _best_round(validation, last=3) == expected


def _outcome(*survivors):
    return {"survivors": list(survivors), "metrics": {"validation/auprc": 0.9, "train/log_loss": 0.3}}


def test_figures_of_a_round_in_which_a_partner_was_missing_are_not_compared():
    coordinator = SimpleNamespace(board=SimpleNamespace(roster=SimpleNamespace(partners=("a", "b", "c"))))
    assert _validation(coordinator, _outcome("a", "b", "c")) == {"auprc": 0.9}
    assert _validation(coordinator, _outcome("a", "b")) == {}


def test_a_round_validates_the_model_of_the_round_before_and_an_evaluation_the_one_it_names():
    assert validated_round(SimpleNamespace(round=4, parameters={"hidden": 8})) == 3
    assert validated_round(SimpleNamespace(round=9, parameters={"after_round": 5})) == 5


def _curve(*values):
    return {number: {} if value is None else {"auprc": value} for number, value in enumerate(values)}


def test_training_ends_after_as_many_rounds_without_a_better_one_as_patience_says():
    falling = _curve(0.1, 0.5, 0.7, 0.6, 0.7)  # what stood before the first round is no candidate
    assert not _is_over(falling, patience=0)
    assert _is_over(falling, patience=1)
    assert _is_over(falling, patience=2)
    assert not _is_over(falling, patience=3)
    assert not _is_over(_curve(0.1, 0.5, 0.7, 0.6, 0.71), patience=2)
    assert _is_over(_curve(None, 0.5, None, 0.4), patience=1), (
        "a round that could not be measured counts for nothing"
    )
    assert not _is_over(_curve(None, None, 0.5), patience=1)
