"""The sum is exact for whoever survives, at any phase, or nothing is released."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import AgreementViolation, TooFewPartners
from data_contracts.plan import Lane
from tasks.secure_aggregation.protocol import Attempt
from tasks.secure_aggregation.quantization import LaneCode, decode, encode
from tests.secure_aggregation.consortium import COUNT, UPDATE, WIDE, Consortium, secret

TINY = (Lane(name="count", length=2, ring_bits=32, value_bits=20),)
PHASES = ("advert", "shares", "masked", "confirmation", "unmasking")


def subsets(names):
    return chain.from_iterable(combinations(names, k) for k in range(len(names) + 1))


def expected(consortium: Consortium, survivors) -> dict[str, np.ndarray]:
    """The survivors' sum, computed without any mask from the same integers."""
    attempt = Attempt(consortium.plan, consortium.identities)
    sums = {}
    for lane in consortium.lanes:
        code = LaneCode(lane, n_partners=consortium.n)
        encoded = [
            encode(
                code,
                consortium.contributions[name][lane.name],
                rounding_key=secret("rounding", name),
                context=attempt.rounding_context,
            )[0]
            for name in survivors
        ]
        sums[lane.name] = decode(code, np.sum(encoded, axis=0, dtype=encoded[0].dtype))
    return sums


def assert_exact(consortium: Consortium, total, survivors) -> None:
    assert total.survivors == tuple(sorted(survivors))
    for lane, value in expected(consortium, survivors).items():
        np.testing.assert_array_equal(total.values[lane], value)


@pytest.mark.parametrize("phase", range(5), ids=PHASES)
@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (4, 3), (5, 4), (5, 3), (6, 4), (6, 5)])
def test_sum_is_exact_for_every_subset_of_droppers_at_every_phase(n, threshold, phase):
    for droppers in subsets(Consortium(n, threshold).names):
        # without ML-KEM for speed: tests/secure_aggregation/test_hybrid.py drops partners with it
        consortium = Consortium(n, threshold, TINY, plan_fields={"pair_secrets": "x25519"})
        gone = [()] * phase + [droppers]
        if n - len(droppers) < threshold:
            with pytest.raises(TooFewPartners, match="nothing was released"):
                consortium.run(*gone)
            continue
        total = consortium.run(*gone)
        lost = set(droppers) if phase <= 2 else set()  # a masked vector that arrived counts
        assert_exact(consortium, total, set(consortium.names) - lost)


def test_any_two_of_seven_may_drop_after_dealing_shares_and_a_third_may_not():
    names = Consortium(7, 5).names
    for droppers in combinations(names, 2):
        consortium = Consortium(7, 5)
        assert_exact(consortium, consortium.run((), (), droppers), set(names) - set(droppers))
    for droppers in list(combinations(names, 3))[::5]:
        with pytest.raises(TooFewPartners, match=droppers[0]):
            Consortium(7, 5).run((), (), droppers)


def test_droppers_at_different_phases_add_up():
    consortium = Consortium(7, 4)
    total = consortium.run(("p000",), ("p001",), ("p003",), (), ())
    assert_exact(consortium, total, {"p002", "p004", "p005", "p006"})
    consortium = Consortium(9, 5)
    total = consortium.run((), (), ("p003",), ("p001",), ("p002", "p008"))
    assert_exact(consortium, total, set(consortium.names) - {"p003"})


@st.composite
def rounds(draw):
    n = draw(st.integers(3, 12))
    threshold = draw(st.integers(max(3, n // 2 + 1), n))
    ring = draw(st.sampled_from([16, 32, 64]))
    most = {16: 12, 32: 28, 64: 53}[ring]
    bits = draw(st.integers(2, most))
    lanes = (
        Lane(name="real", length=draw(st.integers(0, 300)), ring_bits=ring, value_bits=bits, clip=0.37),
        Lane(name="exact", length=draw(st.integers(0, 70)), ring_bits=ring, value_bits=bits),
    )
    names = Consortium(n, threshold).names
    leavers = draw(st.permutations(names))[: draw(st.integers(0, n - threshold))]
    gone = [[] for _ in range(5)]
    for name in leavers:
        gone[draw(st.integers(0, 4))].append(name)
    return Consortium(n, threshold, lanes, seed=draw(st.integers(0, 2**32 - 1))), gone


@given(rounds())
@settings(max_examples=40, deadline=None)
def test_sum_is_exact_at_any_ring_size_and_dropout(case):
    consortium, gone = case
    total = consortium.run(*gone)
    assert_exact(consortium, total, set(consortium.names) - set(chain(*gone[:3])))


@given(
    st.sampled_from([16, 32, 64]),
    st.integers(20, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 999, 10**6]),
)
@settings(max_examples=6, deadline=None)
def test_sum_is_exact_for_forty_partners_and_a_million_numbers(ring, n, seed, length):
    bits = {16: 10, 32: 26, 64: 53}[ring]
    length = min(length, 10**6 // n)
    lanes = (Lane(name="real", length=length, ring_bits=ring, value_bits=bits, clip=0.1), COUNT)
    consortium = Consortium(n, n // 2 + 1, lanes, seed=seed)
    most = n - consortium.threshold
    leavers = [set(consortium.names[i:most:5]) for i in range(5)]
    total = consortium.run(*leavers)
    assert_exact(consortium, total, set(consortium.names) - leavers[0] - leavers[1] - leavers[2])


def test_sum_is_exact_for_a_million_numbers_of_ten_partners_of_whom_three_leave():
    lanes = (Lane(name="real", length=10**6, ring_bits=16, value_bits=12, clip=0.1), COUNT)
    consortium = Consortium(10, 7, lanes)
    total = consortium.run(("p001",), ("p004",), ("p008",))
    assert_exact(consortium, total, set(consortium.names) - {"p001", "p004", "p008"})


def test_sum_of_reals_is_the_plain_sum_within_one_step_each():
    consortium = Consortium(6, 5, (UPDATE, WIDE, COUNT))
    total = consortium.run()
    for lane in (UPDATE, WIDE):
        inputs = [
            np.clip(c[lane.name].astype(float), -lane.clip, lane.clip)
            for c in consortium.contributions.values()
        ]
        step = lane.clip / (2 ** (lane.value_bits - 1) - 1)
        assert np.abs(total.values[lane.name] - np.sum(inputs, axis=0)).max() < 6 * step * (1 + 1e-3)
        assert total.values[lane.name].dtype == np.float64
    counts = np.sum([c["count"] for c in consortium.contributions.values()], axis=0)
    np.testing.assert_array_equal(total.values["count"], counts)
    assert total.values["count"].dtype == np.int64


def test_clipped_values_are_counted_in_the_sum_only():
    consortium = Consortium(4, 3, (UPDATE, COUNT, WIDE))
    for i, name in enumerate(consortium.names):
        consortium.contributions[name]["update"] = np.full(5, 0.5, np.float32)
        consortium.contributions[name]["update"][:i] = -3.0
    total = consortium.run()
    assert total.n_clipped == {"update": 6, "wide": int(total.n_clipped["wide"])}
    assert abs(total.values["update"][0] - (0.5 - 3)) < 4 / 2047


def test_lanes_larger_than_a_block_and_of_all_rings_keep_their_places():
    lanes = (
        Lane(name="a", length=70_001, ring_bits=16, value_bits=12, clip=1.0),
        Lane(name="b", length=33_333, ring_bits=32, value_bits=24),
        Lane(name="c", length=17_001, ring_bits=64, value_bits=50, clip=2.0),
        Lane(name="d", length=0, ring_bits=64, value_bits=50),
    )
    consortium = Consortium(3, 3, lanes)
    assert_exact(consortium, consortium.run(), consortium.names)


def test_a_restart_from_the_same_root_repeats_every_byte():
    logs = []
    for sent in (None, "the shares of the first time"):
        consortium = Consortium(4, 3)
        adverts = consortium.adverts()
        shares = consortium.shares(adverts, consortium.names, sent and logs[0][1])
        masked = consortium.masked(shares, consortium.names[:3])
        confirmations = consortium.confirmations(consortium.names[:3], consortium.names[:3])
        logs.append(
            (
                adverts,
                shares,
                masked,
                confirmations,
                consortium.unmaskings(confirmations, consortium.names[:3]),
            )
        )
    assert logs[0] == logs[1]


def test_no_byte_of_a_masked_vector_repeats_in_another_attempt():
    """The plan's digest keys every mask: one root, two attempts, same numbers."""
    vectors = []
    for attempt in (0, 1):
        consortium = Consortium(
            3, 3, (Lane(name="count", length=4096, ring_bits=64, value_bits=40),), attempt=attempt
        )
        consortium.root = lambda name: secret("one root for all attempts", name)
        shares = consortium.shares(consortium.adverts(), consortium.names)
        vectors.append(np.frombuffer(consortium.masked(shares, consortium.names)["p000"][192:], "<u8"))
    assert not np.intersect1d(*vectors).size


@pytest.mark.parametrize(
    ("n", "threshold", "message"),
    [(2, 2, "threshold 2"), (3, 2, "threshold 2")],
)
def test_a_plan_that_would_release_a_sum_of_two_is_refused(n, threshold, message):
    with pytest.raises(AgreementViolation, match=message):
        Consortium(n, threshold).adverts()


def test_a_cohort_with_a_partner_without_pinned_key_is_refused():
    consortium = Consortium(4, 3)
    del consortium.identities["p002"]
    with pytest.raises(AgreementViolation, match="p002"):
        consortium.adverts(["p000"])


@pytest.mark.parametrize(
    ("contribution", "message"),
    [
        ({"update": np.zeros(5, np.float32)}, "no array"),
        ({"update": np.zeros(4, np.float32), "count": np.zeros(3, np.int64)}, r"shape \(4,\)"),
        ({"update": np.zeros(5, np.float16), "count": np.zeros(3, np.int64)}, "float16"),
        ({"update": np.zeros(5, np.float32), "count": np.zeros(3, np.float64)}, "float64"),
        (
            {"update": np.zeros(5, np.float32), "count": np.zeros(3, np.int64), "more": np.zeros(1)},
            "does not have: more",
        ),
        ({"update": np.full(5, np.nan, np.float32), "count": np.zeros(3, np.int64)}, "not a finite"),
        ({"update": np.zeros(5, np.float32), "count": np.full(3, 2**39)}, "40 bits"),
    ],
)
def test_a_contribution_that_does_not_fit_the_plan_is_refused_before_anything_is_masked(
    contribution, message
):
    consortium = Consortium(3, 3)
    shares = consortium.shares(consortium.adverts(), consortium.names)
    consortium.contributions["p001"] = contribution
    with pytest.raises(AgreementViolation, match=message):
        consortium.masked(shares, ["p001"])
