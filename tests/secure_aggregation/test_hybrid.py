"""Pair secrets rest on X25519 and on ML-KEM-768: either alone keeps seals and masks closed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.plan import HYBRID
from tasks.secure_aggregation import dealing, key_encapsulation, messages, protocol, recovery
from tasks.secure_aggregation.attempt_secrets import HybridPair
from tasks.secure_aggregation.key_encapsulation import KemPair, encapsulate
from tasks.secure_aggregation.keys import unseal
from tests.secure_aggregation.consortium import COUNT, Consortium, secret
from tests.secure_aggregation.deviations import resign, until_masked

LANES = (COUNT,)
CLASSICAL = {"pair_secrets": "x25519"}
KEM_ADVERT = messages.HEAD_BYTES + 64  # where the ML-KEM keys begin
DEALT = messages.SEALED_BYTES + 64 + 1088


def total_count(c: Consortium, names=None):
    return np.sum([c.contributions[name]["count"] for name in names or c.names], axis=0)


@pytest.mark.parametrize("fields", [{}, CLASSICAL], ids=["hybrid", "x25519"])
@pytest.mark.parametrize("gone", [(), ("p000",), ("p004",), ("p002",)])
def test_the_sum_is_exact_with_and_without_the_post_quantum_half(fields, gone):
    """Droppers at both ends of the cohort: their pair secrets are all given, all taken, or both."""
    c = Consortium(5, 4, LANES, plan_fields=fields)
    survivors = [name for name in c.names if name not in gone]
    np.testing.assert_array_equal(c.run((), (), gone).values["count"], total_count(c, survivors))


def test_hybrid_is_what_a_plan_means_if_it_says_nothing(five):
    assert five.plan.pair_secrets == HYBRID
    assert len(five.adverts()["p000"]) == messages.HEAD_BYTES + 2 * (32 + 1184) + 64
    assert len(Consortium(5, 4, LANES, plan_fields=CLASSICAL).adverts()["p000"]) == messages.HEAD_BYTES + 128


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=20, deadline=None)
def test_a_secret_is_recovered_by_its_holder_and_by_nobody_else(seed):
    pair = KemPair.from_seed(seed, label="l", context=b"c")
    again = KemPair.from_seed(seed, label="l", context=b"c")
    other = KemPair.from_seed(seed, label="l", context=b"d")
    value, ciphertext = encapsulate(pair.public, who="p")
    assert pair.public == again.public != other.public
    assert again.decapsulate(ciphertext) == value != other.decapsulate(ciphertext)
    assert encapsulate(pair.public, who="p")[0] != value


def opened_with(c: Consortium, *, dh: bool, kem: bool) -> bytes:
    """Open what p001 sealed for p000, by one who has broken one half of the key agreement, both, or none."""
    _, _, shares, _ = until_masked(c)
    around = Consortium(5, 4, LANES)
    adverts = around.adverts()
    state, _ = around.states["p000"].share(adverts, sent=shares["p000"])
    n = state._around
    message = messages.Shares.parse(
        shares["p001"], n.attempt, sender="p001", transcript=n.transcript, graph=n.graph
    )
    dealt = message.dealt[0]
    place = protocol.seal_place(n.attempt, n.transcript, dealer="p001", holder="p000")
    dh_secret = n.secrets.cipher.dh.shared_with(n.adverts["p001"].cipher.dh, who="p001") if dh else bytes(32)
    kem_secret = n.secrets.cipher.decapsulate(dealt.encapsulated) if kem else bytes(32)
    return unseal(
        dealt.sealed, key=protocol.seal_key(dh_secret, kem_secret, place=place), bound_to=place, who="p001"
    )


def test_a_seal_opens_only_with_both_halves(five):
    assert len(opened_with(five, dh=True, kem=True)) == 66
    for halves in ({"dh": True, "kem": False}, {"dh": False, "kem": True}):
        with pytest.raises(ProtocolError, match="do not open"):
            opened_with(Consortium(5, 4, LANES), **halves)


def test_a_pairwise_mask_changes_with_either_half(five):
    attempt = protocol.Attempt(five.plan, five.identities)
    pairs = [
        HybridPair.from_seed(secret(i), label="mask-key", context=b"", pair_secrets=HYBRID) for i in range(3)
    ]
    keys = {
        protocol.pair_mask_key(
            pairs[0].dh, pairs[i].dh.public, attempt, secret("t"), me="p000", peer="p001", secret=secret(k)
        )
        for i in (1, 2)
        for k in ("one", "another")
    }
    assert len(keys) == 4


def test_a_malformed_post_quantum_key_is_refused_and_named(five):
    adverts = five.adverts()
    bad = resign(
        five,
        adverts["p003"],
        signer="p003",
        change=lambda b: b.__setitem__(slice(KEM_ADVERT, KEM_ADVERT + 1184), b"\xff" * 1184),
    )
    with pytest.raises(ProtocolError, match="ML-KEM key of 'p003' is malformed"):
        five.states["p001"].share({**adverts, "p003": bad})


def test_a_post_quantum_key_that_occurs_twice_is_refused_and_named(five):
    adverts = five.adverts()
    stop = KEM_ADVERT + 2 * 1184
    copied = resign(
        five,
        adverts["p003"],
        signer="p003",
        change=lambda b: b.__setitem__(slice(KEM_ADVERT, stop), adverts["p000"][KEM_ADVERT:stop]),
    )
    with pytest.raises(ProtocolError, match="'p003' repeats a public key that 'p000'"):
        five.states["p001"].share({**adverts, "p003": copied})


def test_an_altered_ciphertext_does_not_open_its_seal(five):
    shares = five.shares(five.adverts(), five.names)
    at = messages.HEAD_BYTES + 64 + messages.SEALED_BYTES + 64 + 7
    altered = resign(five, shares["p001"], signer="p001", change=lambda b: b.__setitem__(at, b[at] ^ 1))
    with pytest.raises(ProtocolError, match="sealed shares of 'p001' do not open"):
        five.masked({**shares, "p001": altered}, ["p000"])


@pytest.mark.parametrize("part", [0, 1088, 1088 + 32], ids=["ciphertext", "wrapped secret", "commitment"])
def test_an_altered_pair_secret_is_refused_by_its_taker_and_names_the_giver(five, part):
    """p000 gives to p001 .. p004 in order; it alters what it gives to p002."""
    shares = five.shares(five.adverts(), five.names)
    at = messages.HEAD_BYTES + 64 + 5 * DEALT + messages.GIVEN_BYTES + part
    altered = resign(five, shares["p000"], signer="p000", change=lambda b: b.__setitem__(at, b[at] ^ 1))
    with pytest.raises(ProtocolError, match="'p000' gave 'p002' a pair secret that it did not commit to"):
        five.masked({**shares, "p000": altered}, ["p002"])


def test_a_giver_whose_pair_secrets_are_not_of_its_seed_is_named_once_it_drops(monkeypatch):
    """p001 gives and commits to other secrets than the seed it deals shares of: unmasking without it finds out."""
    c = Consortium(5, 4, LANES)
    honest = dealing.pair_secret

    def crooked(mask_seed, attempt, *, giver, taker):
        value = honest(mask_seed, attempt, giver=giver, taker=taker)
        return bytes(32) if giver == "p001" else value

    monkeypatch.setattr(dealing, "pair_secret", crooked)
    assert recovery.pair_secret is honest
    with pytest.raises(ProtocolError, match="'p001' dealt of its pair secrets do not give"):
        c.run((), (), ("p001",))


def test_shares_kept_for_a_restart_must_follow_the_same_adverts(five):
    adverts = five.adverts()
    shares = five.shares(adverts, five.names)
    again = Consortium(5, 4, LANES)
    mine = again.adverts()
    assert mine == adverts, "adverts repeat bit for bit"
    assert again.shares(adverts, ["p000"], shares) == {"p000": shares["p000"]}
    assert again.shares(adverts, ["p001"])["p001"] != shares["p001"], "ciphertexts are fresh"
    fewer = {name: adverts[name] for name in five.names[:4]}
    again.adverts()
    with pytest.raises(ProtocolError, match="shares message of 'p000'"):
        again.shares(fewer, ["p000"], shares)


def test_an_installation_without_ml_kem_refuses_the_plan_by_name(monkeypatch):
    def missing(seed):
        raise UnsupportedAlgorithm("ML-KEM")

    library = SimpleNamespace(from_seed_bytes=missing)
    monkeypatch.setattr(key_encapsulation, "MLKEM768PrivateKey", library)
    with pytest.raises(AgreementViolation, match="does not have"):
        Consortium(5, 4, LANES).adverts()
    Consortium(5, 4, LANES, plan_fields=CLASSICAL).run()


def test_no_post_quantum_secret_is_printed():
    pair = KemPair.from_seed(secret("s"), label="l", context=b"")
    hybrid = HybridPair.from_seed(secret("s"), label="l", context=b"", pair_secrets=HYBRID)
    assert "private" not in repr(pair).lower()
    assert repr(hybrid) == "HybridPair()"
    assert repr(replace(pair)) == repr(pair)
