"""Anybody repeats a round bit for bit, and sums over varying cohorts do not isolate anybody."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import AgreementViolation, ProtocolError, TooFewPartners, UpdateMismatch
from data_contracts.plan import Lane
from tasks.secure_aggregation.differencing import check_release
from tasks.secure_aggregation.verification import RoundMessages, replay, verify
from tests.secure_aggregation.consortium import COUNT, UPDATE, WIDE, Consortium, Journey


@pytest.fixture(scope="module")
def played():
    consortium = Consortium(5, 3, (UPDATE, COUNT, WIDE))
    journey = Journey(consortium, [set(), {"p004"}, {"p001"}, set(), set()], None)
    total = journey.run()
    messages = RoundMessages(*(journey.log[phase] for phase in journey.log))
    return consortium, messages, total


def test_a_round_is_repeated_bit_for_bit_from_its_messages(played):
    consortium, messages, total = played
    found = verify(consortium.plan, messages, identities=consortium.identities, claimed=total)
    assert found.survivors == ("p000", "p002", "p003")
    for lane in total.values:
        assert found.values[lane].tobytes() == total.values[lane].tobytes()


def test_any_sufficient_set_of_unmasking_messages_gives_the_same_sum():
    consortium = Consortium(6, 4)
    journey = Journey(consortium, [set()] * 5, None)
    total = journey.run()
    messages = RoundMessages(*(journey.log[phase] for phase in journey.log))
    for chosen in combinations(consortium.names, 4):
        few = replace(messages, unmaskings={name: messages.unmaskings[name] for name in chosen})
        verify(consortium.plan, few, identities=consortium.identities, claimed=total)
    with pytest.raises(TooFewPartners):
        replay(
            consortium.plan,
            replace(messages, unmaskings={name: messages.unmaskings[name] for name in chosen[:3]}),
            identities=consortium.identities,
        )


def test_a_claim_that_differs_in_one_bit_is_refused_and_names_the_lane(played):
    consortium, messages, total = played
    wrong = {name: values.copy() for name, values in total.values.items()}
    wrong["count"][1] ^= 1
    for claimed, message in (
        (replace(total, values=wrong), "differ: count"),
        (
            replace(total, values={"count": total.values["count"], "update": total.values["update"]}),
            "differ: wide",
        ),
        (replace(total, survivors=("p000", "p002", "p004")), "the claimed sum is of p000, p002, p004"),
        (replace(total, n_clipped={"update": 10**6, "wide": 0}), "counts of clipped values"),
        (replace(total, values={**wrong, "count": total.values["count"].astype(float)}), "differ: count"),
    ):
        with pytest.raises(UpdateMismatch, match=message):
            verify(consortium.plan, messages, identities=consortium.identities, claimed=claimed)


def test_a_coordinator_that_leaves_out_a_survivor_cannot_explain_its_sum(played):
    consortium, messages, _ = played
    fewer = replace(messages, masked={name: messages.masked[name] for name in ("p000", "p002")})
    with pytest.raises(TooFewPartners):
        replay(consortium.plan, fewer, identities=consortium.identities)
    swapped = replace(messages, masked={**messages.masked, "p000": messages.masked["p002"]})
    with pytest.raises(ProtocolError, match="'p000' was made for another plan, phase or sender"):
        replay(consortium.plan, swapped, identities=consortium.identities)


# ---------------------------------------------------------------- differencing

ALL = tuple("abcdefgh")


def test_the_difference_of_two_cohorts_must_not_be_small():
    check_release(ALL, released=[ALL, ALL], min_cohort=3)
    check_release(ALL[:5], released=[ALL], min_cohort=3)  # differ by three
    for few in (ALL[:6], ALL[:7], (*ALL, "z")):
        with pytest.raises(AgreementViolation, match="would isolate"):
            check_release(few, released=[ALL], min_cohort=3)
    with pytest.raises(AgreementViolation, match="below the minimum cohort of 3"):
        check_release(("a", "b", "b"), released=[], min_cohort=3)


def test_the_same_cohort_again_says_nothing_new_even_if_others_came_out_against_the_rule():
    check_release(ALL, released=[ALL, ALL[:7]], min_cohort=3)
    with pytest.raises(AgreementViolation, match="would isolate"):
        check_release(ALL[:6], released=[ALL, ALL[:7]], min_cohort=3)


def test_a_combination_of_three_sums_is_found_where_no_pair_of_them_is_small():
    """{a..d} + {c..f} + {a,b,e,f} counts everybody twice; with {a..g} it isolates g."""
    released = [("a", "b", "c", "d"), ("c", "d", "e", "f"), ("a", "b", "e", "f")]
    for pair in combinations(released, 2):
        check_release(pair[1], released=[pair[0]], min_cohort=2)
    with pytest.raises(AgreementViolation, match="isolate 1 partners"):
        check_release(("a", "b", "c", "d", "e", "f", "g"), released=released, min_cohort=2)


@given(st.lists(st.sets(st.sampled_from(ALL[:6]), min_size=3), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_the_guard_agrees_with_linear_algebra_over_the_reals(cohorts):
    """Oracle: a group is isolated if some combination of the rows vanishes outside it and not on it (SVD)."""
    *released, cohort = cohorts
    matrix = np.array([[name in c for name in ALL[:6]] for c in cohorts], float)
    rank = np.linalg.matrix_rank(matrix)
    isolates = any(
        np.linalg.matrix_rank(np.delete(matrix, group, axis=1)) < rank
        for size in (1, 2)
        for group in combinations(range(6), size)
    )
    if isolates and cohort not in released:
        with pytest.raises(AgreementViolation):
            check_release(cohort, released=released, min_cohort=3)
    else:
        check_release(cohort, released=released, min_cohort=3)


def test_two_sums_of_one_round_have_one_cohort():
    """Lanes of one plan are summed over the same survivors, so they never differ."""
    consortium = Consortium(5, 3, (COUNT, Lane(name="more", length=1, ring_bits=64, value_bits=30)))
    total = consortium.run((), (), ("p002",))
    check_release(total.survivors, released=[total.survivors], min_cohort=3)
