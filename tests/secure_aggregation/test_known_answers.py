"""Known answers for the primitives, and the statistics of masked vectors."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.plan import HYBRID, Lane
from tasks.secure_aggregation import vector
from tasks.secure_aggregation.attempt_secrets import AttemptSecrets
from tasks.secure_aggregation.keys import KeyPair, derive, seal, unseal
from tasks.secure_aggregation.masking import BLOCK_BYTES, Keystream, Layout, Masks
from tasks.secure_aggregation.quantization import LaneCode, decode, encode
from tasks.secure_aggregation.shamir import PRIME, combine, in_range, split
from tasks.secure_aggregation.vector import body_digest
from tests.secure_aggregation.consortium import COUNT, UPDATE, Consortium, Journey, secret

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secure_aggregation.json").read_text())


def h(text: str) -> bytes:
    return bytes.fromhex(text)


# ---------------------------------------------------------------- known answers


def test_the_hkdf_that_keys_derive_from_is_rfc_5869():
    """Test case 3 of RFC 5869 (SHA-256, no salt), through the same class that `derive` uses."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    case = VECTORS["hkdf_rfc5869_case_3"]
    found = HKDF(algorithm=SHA256(), length=case["length"], salt=None, info=b"").derive(h(case["ikm"]))
    assert found == h(case["okm"])


@pytest.mark.parametrize("case", VECTORS["derive"], ids=lambda case: case["label"])
def test_derived_keys_are_the_recorded_ones(case):
    assert derive(h(case["secret"]), label=case["label"], context=h(case["context"])) == h(case["key"])


def test_the_keystream_is_aes_256_ctr_of_sp_800_38a():
    """F.5.5 of SP 800-38A starts at another counter; AES-256 of the counter blocks themselves is the oracle."""
    case = VECTORS["keystream"]
    out = np.empty(48, np.uint8)
    Keystream(h(case["key"])).fill(out)
    assert out.tobytes() == h(case["first_48_bytes"])


def test_shares_are_the_recorded_ones():
    case = VECTORS["shamir"]
    shares = split(
        h(case["secret"]),
        threshold=case["threshold"],
        points=[int(point) for point in case["shares"]],
        polynomial_key=h(case["polynomial_key"]),
    )
    assert {str(point): share.hex() for point, share in shares.items()} == case["shares"]


def test_a_polynomial_over_the_field_is_interpolated_at_zero():
    """Hand-made: f(x) = 5 + 7x + 11x^2, so f(1) = 23, f(2) = 63, f(4) = 209."""
    shares = {1: (23).to_bytes(33, "big"), 2: (63).to_bytes(33, "big"), 4: (209).to_bytes(33, "big")}
    assert combine(shares, threshold=3) == (5).to_bytes(32, "big")


def test_the_field_has_prime_order():
    """Fermat's test to many bases; p = 2^256 + 297."""
    assert PRIME == 2**256 + 297
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 40))


def test_diffie_hellman_of_rfc_7748_section_5_2():
    case = VECTORS["x25519_rfc7748"]
    pair = KeyPair(public=b"", _private=X25519PrivateKey.from_private_bytes(h(case["scalar"])))
    assert pair.shared_with(h(case["point"]), who="bob") == h(case["shared"])


def test_a_whole_run_says_what_it_said_when_it_was_recorded():
    """Without ML-KEM every byte follows from the roots: a change of the wire format or of any key shows here."""
    consortium = Consortium(5, 4, (UPDATE, COUNT), plan_fields={"pair_secrets": "x25519"})
    journey = Journey(consortium, [set(), set(), {"p001"}, set(), set()], None)
    journey.run()
    found = {
        phase: hashlib.sha256(b"".join(sent[name] for name in sorted(sent))).hexdigest()
        for phase, sent in journey.log.items()
    }
    assert found == VECTORS["whole_run_x25519"]


def test_the_digest_of_a_vector_of_several_blocks_is_the_recorded_one():
    """The size of a block is part of what partners sign: sites of two sizes would refuse each other's vectors."""
    case = VECTORS["body_digest"]
    plan = Consortium(3, 2, (Lane(name="u", length=case["length"], ring_bits=64, value_bits=48),)).plan
    layout = Layout.of(plan)
    body = np.arange(layout.n_bytes // 8, dtype="<u8")
    assert layout.n_bytes > 2 * BLOCK_BYTES
    assert body_digest(layout, body.data.cast("B"), workers=1) == h(case["sha256"])


# ---------------------------------------------------------------- shamir


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(1, 12),
    st.integers(0, 6),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_any_threshold_of_shares_gives_the_secret_back(value, threshold, spare, rng):
    points = rng.sample(range(1, 1025), threshold + spare)
    shares = split(value, threshold=threshold, points=points, polynomial_key=secret("k"))
    assert all(in_range(share) for share in shares.values())
    chosen = rng.sample(points, threshold)
    assert combine({point: shares[point] for point in chosen}, threshold=threshold) == value


def test_fewer_shares_than_the_threshold_fit_every_secret():
    """Two of three shares: for any other secret there is a third share that completes them to it."""
    shares = split(secret("s"), threshold=3, points=[1, 2, 3], polynomial_key=secret("k"))
    values = {point: int.from_bytes(shares[point], "big") for point in (1, 2)}
    for other in (0, 12345, 2**256 - 1):
        # f(0) = 3 f(1) - 3 f(2) + f(3)  =>  f(3)
        third = (other - 3 * values[1] + 3 * values[2]) % PRIME
        completed = {1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}
        assert combine(completed, threshold=3) == other.to_bytes(32, "big")


def test_shares_of_no_secret_are_told_apart():
    shares = {1: (2**256 + 5).to_bytes(33, "big")}
    assert combine(shares, threshold=1) is None


@pytest.mark.parametrize("share", [PRIME.to_bytes(33, "big"), b"\xff" * 33, bytes(32), bytes(34)])
def test_a_share_outside_the_field_is_not_in_range(share):
    assert not in_range(share)


@pytest.mark.parametrize(("threshold", "points"), [(4, [1, 2, 3]), (2, [1, 1]), (2, [0, 1]), (0, [1])])
def test_points_that_cannot_serve_are_refused(threshold, points):
    with pytest.raises(ValueError, match="points cannot serve"):
        split(bytes(32), threshold=threshold, points=points, polynomial_key=bytes(32))


def test_too_few_shares_are_refused():
    with pytest.raises(ValueError, match="fewer than the threshold"):
        combine({1: bytes(33)}, threshold=2)


# ---------------------------------------------------------------- keys


def test_every_secret_of_an_attempt_is_another_one_and_none_is_printed():
    secrets = AttemptSecrets.from_root(secret("r"), plan_digest=secret("p"), pair_secrets=HYBRID)
    values = [
        secrets.mask_seed, secrets.self_seed, *secrets.polynomial_keys,
        secrets.cipher.public.dh, secrets.mask.public.dh, secrets.cipher.public.kem, secrets.mask.public.kem,
    ]  # fmt: skip
    assert len(set(values)) == len(values)
    other = AttemptSecrets.from_root(secret("r"), plan_digest=secret("q"), pair_secrets=HYBRID)
    assert {other.mask_seed, other.self_seed, *other.polynomial_keys}.isdisjoint(values)
    assert not any(value.hex()[:8] in repr(secrets) or repr(value) in repr(secrets) for value in values)


def test_a_key_of_low_order_names_its_sender():
    with pytest.raises(ProtocolError, match="'mallory' is a point of low order"):
        KeyPair.from_seed(secret("s"), label="l", context=b"").shared_with(bytes(32), who="mallory")


def test_a_seal_opens_in_its_own_place_only():
    sealed = seal(b"shares", key=secret("k"), bound_to=b"here")
    assert unseal(sealed, key=secret("k"), bound_to=b"here", who="p") == b"shares"
    with pytest.raises(ProtocolError, match="'p' do not open"):
        unseal(sealed, key=secret("k"), bound_to=b"there", who="p")


def test_a_root_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="31 bytes"):
        AttemptSecrets.from_root(bytes(31), plan_digest=bytes(32), pair_secrets=HYBRID)


# ---------------------------------------------------------------- quantization

CODE = LaneCode(Lane(name="x", length=200_000, ring_bits=16, value_bits=12, clip=1.0), n_partners=16)


@pytest.mark.parametrize("value", [0.0, 0.3, -0.71, 1.0, -1.0, 1e-5])
def test_rounding_is_unbiased(value):
    """Mean over 200,000 roundings: within 5 standard errors of at most half a step each."""
    values = np.full(CODE.lane.length, value, np.float32)
    ring, n_clipped = encode(CODE, values, rounding_key=secret("k"), context=bytes(32))
    step = 1 / 2047
    assert (
        abs(decode(CODE, ring).mean() - np.float32(value))
        < 5 * 0.5 * step / np.sqrt(CODE.lane.length) + step * 2**-12
    )
    assert n_clipped == 0


def test_the_largest_values_never_exceed_their_bits():
    for bits, dtype in ((12, np.float32), (13, np.float64), (16, np.float64)):
        code = LaneCode(Lane(name="x", length=4, ring_bits=32, value_bits=bits, clip=0.7), n_partners=3)
        for attempt in range(50):
            values = np.array([0.7, -0.7, 9e37, -9e37], dtype)
            ring, n_clipped = encode(code, values, rounding_key=secret(attempt), context=bytes(32))
            assert np.abs(ring.view(np.int32)).max() <= code.largest
        assert n_clipped >= 2


@given(st.integers(2, 53), st.sampled_from([16, 32, 64]), st.integers(2, 1024))
def test_a_lane_code_exists_exactly_if_no_sum_can_wrap(bits, ring, n):
    lane = Lane(name="x", length=1, ring_bits=ring, value_bits=bits)
    fits = n * (2 ** (bits - 1) - 1) < 2 ** (ring - 1)
    if fits:
        code = LaneCode(lane, n_partners=n)
        extreme, _ = encode(code, np.array([-code.largest]), rounding_key=bytes(32), context=bytes(32))
        assert decode(code, extreme * extreme.dtype.type(n))[0] == -n * code.largest
    else:
        with pytest.raises(AgreementViolation, match="could wrap around"):
            LaneCode(lane, n_partners=n)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_is_not_finite_is_refused_wherever_it_stands(poison, dtype):
    for place in (0, 77_777, CODE.lane.length - 1):
        values = np.zeros(CODE.lane.length, dtype)
        values[place] = poison
        with pytest.raises(AgreementViolation, match="not a finite number"):
            encode(CODE, values, rounding_key=bytes(32), context=bytes(32))


def test_rounding_repeats_under_one_key_and_differs_under_another():
    values = np.linspace(-1, 1, CODE.lane.length, dtype=np.float32)
    first, again, other = (
        encode(CODE, values, rounding_key=secret(key), context=bytes(32))[0] for key in ("a", "a", "b")
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


# ---------------------------------------------------------------- statistics of masks


def p_value_of_uniformity(data: bytes) -> float:
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    statistic = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    return float(chi2.sf(statistic, df=255))


ZEROS = (Lane(name="zero", length=100_000, ring_bits=16, value_bits=10),)


def masked_zero_vectors(n: int = 4) -> tuple[Consortium, dict[str, bytes]]:
    consortium = Consortium(n, 3, ZEROS)
    for name in consortium.names:
        consortium.contributions[name] = {"zero": np.zeros(100_000, np.int64)}
    shares = consortium.shares(consortium.adverts(), consortium.names)
    masked = consortium.masked(shares, consortium.names)
    return consortium, {name: message[192:] for name, message in masked.items()}


def test_a_masked_zero_vector_is_uniform_and_so_is_every_partial_sum():
    _, vectors = masked_zero_vectors()
    rings = [np.frombuffer(data, "<u2") for data in vectors.values()]
    for k in range(1, len(rings) + 1):
        assert p_value_of_uniformity(np.sum(rings[:k], axis=0, dtype=np.uint16).tobytes()) > 1e-6


def test_masked_vectors_of_two_very_different_inputs_are_alike():
    """The same keys, zeros against the largest values: both uniform, and their bytes' counts agree."""
    samples = []
    for value in (0, 511):
        consortium = Consortium(3, 3, ZEROS)
        consortium.contributions["p000"] = {"zero": np.full(100_000, value)}
        shares = consortium.shares(consortium.adverts(), consortium.names)
        samples.append(np.frombuffer(consortium.masked(shares, ["p000"])["p000"][192:], np.uint8))
    a, b = (np.bincount(sample, minlength=256) for sample in samples)
    assert chi2.sf(((a - b) ** 2 / (a + b)).sum(), df=255) > 1e-6


@pytest.mark.parametrize("left_out", range(5))
def test_the_sum_breaks_if_any_one_mask_of_any_kind_is_left_out(left_out, monkeypatch):
    """p002 forgets one of its five streams: the sum is noise, where it would be zero."""
    honest = vector.mask_contribution

    def forgetful(attempt, contribution, masks, *, me, **arguments):
        if me == "p002":
            keys = [*masks.added, *masks.subtracted]
            assert len(set(keys)) == 5
            masks = Masks(
                added=tuple(key for key in masks.added if key != keys[left_out]),
                subtracted=tuple(key for key in masks.subtracted if key != keys[left_out]),
            )
        return honest(attempt, contribution, masks, me=me, **arguments)

    monkeypatch.setattr("tasks.secure_aggregation.partner.mask_contribution", forgetful)
    consortium = Consortium(5, 3, (Lane(name="zero", length=20_000, ring_bits=32, value_bits=10),))
    for name in consortium.names:
        consortium.contributions[name] = {"zero": np.zeros(20_000, np.int64)}
    noise = consortium.run().values["zero"].astype("<u4").tobytes()
    assert p_value_of_uniformity(noise) > 1e-6


def test_a_vector_without_its_masks_fails_the_test_of_uniformity():
    """The statistic has teeth: no mask, or one mask on one half only, is told apart."""
    zeros = np.zeros(20_000, "<u2")
    assert p_value_of_uniformity(zeros.tobytes()) < 1e-6
    Masks(added=(secret("m"),)).streams().apply_to(zeros[:10_000])
    assert p_value_of_uniformity(zeros.tobytes()) < 1e-6


def test_streams_added_by_one_and_subtracted_by_another_cancel():
    keys = tuple(secret(i) for i in range(3))
    block = np.arange(5000, dtype="<u8")
    Masks(added=keys).streams().apply_to(block)
    Masks(subtracted=keys).streams().apply_to(block)
    np.testing.assert_array_equal(block, np.arange(5000))
