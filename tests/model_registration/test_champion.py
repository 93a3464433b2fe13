"""Who is champion: a rule a person can read, with no way around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model_registration.bundle import DataOrigin, Validation
from tasks.model_registration.champion import Candidate, decide
from tests.model_registration.conftest import REAL, SIMULATED, validated

CONTROL = DataOrigin(synthetic=True, control="permuted-labels")

validations = st.none() | st.builds(
    Validation,
    metric=st.sampled_from(["auprc", "auroc"]),
    value=st.floats(0, 1),
    basis=st.sampled_from(["split-1", "split-2"]),
)
candidates = st.builds(Candidate, data=st.sampled_from([REAL, SIMULATED, CONTROL]), validation=validations)


@pytest.mark.parametrize(
    ("new", "champion", "promoted", "reason"),
    [
        (Candidate(REAL, None), None, True, "no champion"),
        (Candidate(REAL, validated(0.7)), Candidate(REAL, validated(0.7)), True, "not worse"),
        (Candidate(REAL, validated(0.8)), Candidate(REAL, validated(0.7)), True, "not worse"),
        (Candidate(REAL, validated(0.6)), Candidate(REAL, validated(0.7)), False, "worse"),
        (Candidate(REAL, None), Candidate(REAL, validated(0.7)), False, "not validated"),
        (Candidate(REAL, validated(0.1)), Candidate(REAL, None), True, "never validated"),
        (Candidate(REAL, validated(0.9, basis="b")), Candidate(REAL, validated(0.7)), False, "another basis"),
        (
            Candidate(REAL, validated(0.9, metric="auroc")),
            Candidate(REAL, validated(0.7)),
            False,
            "another basis",
        ),
        (Candidate(REAL, validated(0.1)), Candidate(SIMULATED, validated(0.9)), True, "real data replaces"),
        (Candidate(SIMULATED, validated(0.9)), None, False, "demonstration registry only"),
        (Candidate(REAL, validated(0.9), "tune"), None, False, "its final model serves"),
        (Candidate(REAL, validated(0.9), "report"), None, False, "its final model serves"),
        (
            Candidate(REAL, validated(0.1, basis="r"), "final"),
            Candidate(REAL, validated(0.7)),
            True,
            "all folds",
        ),
        (Candidate(REAL, validated(0.9)), Candidate(REAL, None, "final"), False, "all folds"),
        (
            Candidate(REAL, validated(0.6), "final"),
            Candidate(REAL, validated(0.7), "final"),
            False,
            "worse",
        ),
    ],
)
def test_the_rule(new, champion, promoted, reason):
    decision = decide(new, champion)
    assert decision.promoted == promoted
    assert reason in decision.reason


def test_a_demonstration_registry_may_serve_a_simulated_model_but_not_over_a_real_one():
    new = Candidate(SIMULATED, validated(0.9))
    assert decide(new, None, allow_synthetic_champion=True).promoted
    assert not decide(new, Candidate(REAL, validated(0.1)), allow_synthetic_champion=True).promoted


@given(new=candidates, champion=st.none() | candidates, demonstration=st.booleans())
def test_a_control_never_serves_and_nothing_simulated_serves_outside_a_demonstration(
    new, champion, demonstration
):
    decision = decide(new, champion, allow_synthetic_champion=demonstration)
    assert decision.reason
    if new.data.control or (new.data.synthetic and not demonstration):
        assert not decision.promoted


@given(one=candidates, other=candidates)
def test_two_models_cannot_take_the_place_of_each_other_for_ever_unless_they_are_equal(one, other):
    both = decide(one, other).promoted and decide(other, one).promoted
    if both and one.validation and other.validation:
        assert one.validation.value == other.validation.value
