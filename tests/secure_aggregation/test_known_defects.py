"""Defects F1 to F10 that were reproduced in another framework's secure aggregation, each shown absent here.

The numbers are those of the defects' list in ``docs/threat-model.md``; ``benchmarks/flower_secure_aggregation.py``
runs that framework's own code.
"""

import numpy as np
import pytest

from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.plan import Lane, RoundPlan
from tasks.secure_aggregation import messages
from tasks.secure_aggregation.graph import COMPLETE_UP_TO
from tasks.secure_aggregation.keys import derive
from tasks.secure_aggregation.masking import Masks
from tasks.secure_aggregation.protocol import Attempt
from tests.secure_aggregation.consortium import COUNT, UPDATE, Consortium, secret
from tests.secure_aggregation.deviations import until_masked

WEIGHT = Lane(name="weight", length=1, ring_bits=64, value_bits=40)


def total(c: Consortium, lane: str, names):
    return np.sum([c.contributions[name][lane] for name in names], axis=0)


def test_f1_every_bit_of_a_256_bit_key_matters_and_masks_reach_the_whole_ring():
    """There: a 32-bit seed (28 of them free) into a Mersenne Twister, and masks that never take the top value."""
    key = derive(secret("s"), label="pair-mask", context=b"")
    assert len(key) == 32
    streams = set()
    for bit in range(256):
        changed = (int.from_bytes(key, "big") ^ (1 << bit)).to_bytes(32, "big")
        block = np.zeros(8, "<u8")
        Masks(added=(changed,)).streams().apply_to(block)
        streams.add(block.tobytes())
    assert len(streams) == 256
    ring = np.zeros(1_500_000, "<u2")
    for start in range(0, ring.nbytes, 2**16):
        Masks(added=(key,)).streams(start=start).apply_to(ring[start // 2 : start // 2 + 2**15])
    assert np.unique(ring).size == 2**16


@pytest.mark.parametrize("phase", range(5))
def test_f2_a_partner_lost_in_any_phase_costs_the_round_nothing(phase):
    """There: six clients, threshold four; one lost in set-up or while sharing keys aborts the round."""
    c = Consortium(6, 4)
    found = c.run(*[()] * phase, ("p002",))
    survivors = set(c.names) - ({"p002"} if phase <= 2 else set())
    np.testing.assert_array_equal(found.values["count"], total(c, "count", survivors))


def test_f3_no_request_makes_a_partner_release_both_shares_of_anybody(five):
    """There: one id in the list of the living and in that of the dead opens its update in one message."""
    until_masked(five)
    state = five.states["p000"]
    with pytest.raises(ProtocolError, match="twice"):
        state.confirm((*five.names, "p003"))
    survivors = five.names[:4]
    confirmations = five.confirmations(survivors, survivors)
    held = {name: five.states[name]._held for name in survivors}
    for name, sent in five.unmaskings(confirmations, survivors).items():
        for own, mask in held[name].values():
            assert (own in sent) != (mask in sent)


def test_f4_nothing_but_the_masked_vector_depends_on_a_weight_or_a_value(five):
    """There: the number of examples and all metrics travel in clear beside the masked weight."""
    runs, sent = [], None
    for weight in (10, 200_000):
        c = Consortium(5, 4, (WEIGHT,))
        for name in c.names:
            c.contributions[name]["weight"] = np.array([weight])
        _, adverts, sent, masked = until_masked(c, sent=sent)
        runs.append((adverts, sent, {name: len(message) for name, message in masked.items()}))
        plain = np.array([weight], "<i8").tobytes()
        assert not any(plain in message for message in (*adverts.values(), *sent.values(), *masked.values()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("weight", [2**39, -(2**39), 2**62])
def test_f5_a_weight_beyond_its_range_is_refused_before_anything_is_sent(weight):
    """There: a weight above the maximum is logged, and the global model is silently wrong."""
    c = Consortium(3, 3, (WEIGHT,))
    c.contributions["p001"]["weight"] = np.array([weight])
    shares = c.shares(c.adverts(), c.names)
    with pytest.raises(AgreementViolation, match="40 bits"):
        c.masked(shares, ["p001"])


@pytest.mark.parametrize("examples", [1, 10, 1000, 10**9])
def test_f6_the_precision_of_a_weighted_mean_does_not_depend_on_the_weights(examples):
    """There: 1 example of at most 1000 loses three digits. Here the clip, a public scale, follows the weights."""
    lanes = (Lane(name="weighted", length=400, ring_bits=32, value_bits=22, clip=float(examples)), WEIGHT)
    c = Consortium(4, 3, lanes)
    rng = np.random.default_rng(1)
    values = {name: rng.uniform(-1, 1, 400) for name in c.names}
    for name in c.names:
        c.contributions[name] = {"weighted": values[name] * examples, "weight": np.array([examples])}
    found = c.run()
    mean = found.values["weighted"] / found.values["weight"]
    assert np.abs(mean - np.mean(list(values.values()), axis=0)).max() < 1.001 / (2**21 - 1)


def test_f7_clipping_is_counted_and_never_silent():
    """There: values beyond 8 are clipped without a word; one of 20 moves the mean by 2.4."""
    c = Consortium(5, 4, (UPDATE,))
    for name in c.names:
        c.contributions[name]["update"] = np.zeros(5, np.float32)
    c.contributions["p001"]["update"][2] = 20.0
    assert c.run().n_clipped == {"update": 1}


def test_f8_keys_are_signed_the_graph_is_nobodys_choice_and_no_secret_outlives_the_round(five):
    """There: unsigned keys, a graph that the server shuffles, secrets that stay in the client's state."""
    adverts = five.adverts()
    forged = adverts["p001"][:63] + secret("k") + adverts["p001"][95:]
    with pytest.raises(ProtocolError, match="'p001' carries no valid signature"):
        five.states["p000"].share({**adverts, "p001": forged})

    names, attempt = [f"p{i:03d}" for i in range(COMPLETE_UP_TO + 4)], Attempt(five.plan, five.identities)
    graphs = {attempt.graph(order, transcript=secret("t")).order for order in (names, names[::-1])}
    assert len(graphs) == 1, "the order in which the coordinator lists partners changes nothing"

    shares = five.shares(adverts, five.names)
    five.masked(shares, five.names)
    masked = five.states["p000"]
    assert not {"_secrets", "_around"} & set(vars(masked)), "its own keys are gone once the vector is masked"
    confirmations = five.confirmations(five.names, five.names)
    five.unmaskings(confirmations, five.names)
    assert vars(five.states["p000"]) == {"survivors": five.names}


@pytest.mark.parametrize(("n", "threshold"), [(6, 3), (7, 3), (10, 5), (10, 2)])
def test_f9_a_threshold_of_half_or_less_is_refused(n, threshold):
    """There: any threshold from two on will do."""
    with pytest.raises(ValueError, match="threshold"):
        Consortium(n, threshold)


@pytest.mark.parametrize(("ring", "bits", "most"), [(16, 12, 16), (16, 10, 64), (32, 22, 1024)])
def test_f9_a_cohort_whose_sum_could_wrap_around_has_no_plan(ring, bits, most):
    """There: an overflow above 1024 clients is a warning."""
    lane = Lane(name="update", length=1, ring_bits=ring, value_bits=bits, clip=1.0)
    fields = {"run_id": "run-1", "round": 1, "study": "s", "lanes": (lane,)}
    names = tuple(f"p{i:04d}" for i in range(1025))
    RoundPlan(cohort=names[:most], threshold=most, **fields)
    if most < len(names) - 1:
        with pytest.raises(ValueError, match="could wrap around"):
            RoundPlan(cohort=names[: most + 1], threshold=most, **fields)
    assert lane.max_partners == most


def test_f10_a_study_is_handed_the_sum_and_has_no_single_update_to_be_misled_by():
    """There: every client's result is overwritten by the mean, so Krum or a median runs on copies of it."""
    found = Consortium(5, 4).run()
    assert all(
        values.shape == (lane.length,)
        for lane, values in zip((UPDATE, COUNT), found.values.values(), strict=True)
    )
    assert set(vars(found)) == {"values", "survivors", "n_clipped"}
    assert not hasattr(messages, "Update")
