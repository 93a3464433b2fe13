"""A round whose sum only the partners open, over the mailbox: the coordinator publishes what it cannot read."""

import numpy as np
import pytest

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import MAX_BODY_BYTES, Kind
from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.plan import MAX_PARTNERS, Lane, RoundPlan
from tasks.rounds.verification import check_outcome, read_round, repeat_sum
from tests.messages import readable
from tests.rounds.conftest import COUNTING

SHARED = b"\x05" * 32


def blind_round(c):
    counts = {name: [number, -number, 2**40] for number, name in enumerate(c.partners)}
    draft = c.draft(opened_by="partners")
    return draft, c.run_round(draft, counts, blinding_secret=SHARED)


def partner(c, name, secret=SHARED):
    from dataclasses import replace

    return replace(c.contributor(name), blinding_secret=secret)


def test_partners_open_the_exact_sum_and_the_coordinator_has_only_its_blinded_bytes(make_consortium):
    c = make_consortium(4)
    draft, outcomes = blind_round(c)
    assert set(outcomes[0]) == {"blinded_sum", "survivors"}
    assert outcomes[1:] == [outcomes[0]] * 4
    for name in c.partners:
        found = partner(c, name).open_sum(draft)
        assert found.values["counts"].tolist() == [6, -6, 4 * 2**40]
    plain = np.array([6, -6, 4 * 2**40], "<i8").tobytes()
    files = [readable(path) for path in (c.root / "mailbox").rglob("*") if path.is_file()]
    assert not any(plain in data for data in files)


def test_a_partner_without_the_secret_opens_nothing(make_consortium):
    c = make_consortium(4)
    draft, _ = blind_round(c)
    with pytest.raises(AgreementViolation, match="'partner-b' has no blinding secret"):
        partner(c, "partner-b", None).open_sum(draft)


def test_a_round_that_is_not_over_or_not_blind_has_nothing_to_open(make_consortium):
    c = make_consortium(4)
    c.run_round(c.draft(), {name: [1, 2, 3] for name in c.partners})
    for draft in (c.draft(), c.draft(round_number=2)):
        with pytest.raises(ProtocolError, match="announced no blinded sum"):
            partner(c, "partner-a").open_sum(draft)


def test_anybody_repeats_a_blind_round_without_any_secret(make_consortium):
    c = make_consortium(4)
    blind_round(c)
    board = c.boards["partner-c"]
    found = read_round(board, 1)
    total = repeat_sum(found, identities=board.roster.partner_keys)
    check_outcome(found, total, study=COUNTING, inputs=None)
    assert total.model_dump() == found.outcome["blinded_sum"]


def test_messages_of_the_largest_cohort_fit_their_caps():
    """1,024 names of 40 letters, all neighbours of all: plan, lists, shares, unmasking."""
    names = tuple(sorted(f"{'p' * 35}-{i:04d}" for i in range(MAX_PARTNERS)))
    lanes = tuple(
        Lane(name=f"lane_{'x' * 32}_{i:02d}", length=2**31, ring_bits=64, value_bits=50, clip=1.25)
        for i in range(64)
    )
    plan = RoundPlan(
        run_id="r" * 64, round=100_000, study="s" * 40, cohort=names, threshold=MAX_PARTNERS, lanes=lanes,
        parameters={f"parameter_{i:030d}": "x" * 100 for i in range(64)},
    )  # fmt: skip
    senders = canonical_bytes({"senders": list(names)})
    shares = 95 + 64 + MAX_PARTNERS * (82 + 64 + 1088) + MAX_PARTNERS * 1152 + 64
    sizes = {
        Kind.PLAN: len(canonical_bytes(plan.model_dump(mode="json"))),
        Kind.ADVERTS_CLOSED: len(senders),
        Kind.SURVIVORS: len(senders),
        Kind.ADVERT: 95 + 2 * (32 + 1184) + 64,
        Kind.SHARES: shares,
        Kind.UNMASKING: 95 + 32 + 128 + 33 * MAX_PARTNERS + 64,
    }
    assert all(size <= MAX_BODY_BYTES[kind] for kind, size in sizes.items()), sizes
