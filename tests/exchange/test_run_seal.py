"""The seal of a run: the same bytes again, only in their place, only with the key."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.envelope import Kind, Slot
from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.references import BlobReference
from tasks.exchange import run_seal
from tasks.exchange.run_seal import RunSeal

SEAL, OTHER = RunSeal(bytes(32), run_id="run-1"), RunSeal(b"\x01" * 32, run_id="run-1")
KNOWN = "96e86d62746aeffc8adfeb12cb3264f47b2523af9c"
SLOT = Slot("run-1", 1, 0, Kind.RESULT, "coordinator")


def reference_of(data):
    return BlobReference(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), contract="trunk@1")


@given(data=st.binary(max_size=200))
def test_a_body_opens_to_what_was_sealed_and_repeats_to_the_byte(data):
    sealed = SEAL.seal([data[:3], data[3:]], slot=SLOT)
    assert SEAL.open(sealed, slot=SLOT) == data
    assert SEAL.seal([data], slot=SLOT) == sealed
    assert len(sealed) == len(data) + run_seal.TAG_BYTES


@pytest.mark.parametrize(
    "elsewhere",
    [
        SLOT._replace(run_id="run-2"),
        SLOT._replace(round=2),
        SLOT._replace(attempt=1),
        SLOT._replace(kind=Kind.PLAN),
        SLOT._replace(sender="partner-a"),
    ],
)
def test_a_body_opens_nowhere_else(elsewhere):
    with pytest.raises(ProtocolError, match="not sealed with the key of run"):
        SEAL.open(SEAL.seal([b"x"], slot=SLOT), slot=elsewhere)


def test_a_body_opens_with_no_other_key_and_not_once_a_bit_has_changed():
    sealed = SEAL.seal([b"a sum"], slot=SLOT)
    with pytest.raises(ProtocolError):
        OTHER.open(sealed, slot=SLOT)
    with pytest.raises(ProtocolError):
        SEAL.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), slot=SLOT)
    with pytest.raises(ProtocolError):
        SEAL.open(b"", slot=SLOT)


@given(size=st.integers(0, 70), cuts=st.integers(1, 9))
def test_a_blob_opens_whatever_pieces_it_comes_in(size, cuts):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_seal, "SEGMENT_BYTES", 16)
        data = bytes(range(size))
        sealed = b"".join(SEAL.sealed([data], reference_of(data)))
        pieces = [sealed[at : at + cuts] for at in range(0, len(sealed), cuts)]
        assert b"".join(SEAL.opened(pieces, reference_of(data), who="coordinator")) == data
        assert len(sealed) == SEAL.sealed_size(size)


def test_segments_of_a_blob_cannot_be_exchanged_dropped_or_taken_from_another(monkeypatch):
    monkeypatch.setattr(run_seal, "SEGMENT_BYTES", 16)
    data = bytes(32)
    reference = reference_of(data)
    first, second = SEAL.sealed([data], reference)
    for wrong in ([second, first], [first, first], list(SEAL.sealed([data], reference_of(b"other")))):
        with pytest.raises(UpdateMismatch, match="does not open with the run's key"):
            b"".join(SEAL.opened(wrong, reference, who="coordinator"))


def test_a_name_says_nothing_without_the_key():
    reference = reference_of(b"a model")
    assert SEAL.name_of(reference) != OTHER.name_of(reference)
    assert reference.sha256 not in SEAL.name_of(reference)


def test_a_key_of_a_run_known_answer():
    """Made once by this code; if it changes, nobody opens what was sealed before."""
    assert SEAL.seal([b"motet"], slot=SLOT).hex() == KNOWN
