"""Enrolments, rosters and seals: what is accepted, and what is refused by name."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import ProtocolError, SettingsError
from tasks.exchange.enrolment import Enrolment, SignedRoster, parse
from tasks.exchange.identity import Identity
from tasks.exchange.sealing import OVERHEAD_BYTES, SEALING_PUBLIC_BYTES, seal
from tasks.exchange.transport_keys import party_context
from tests.exchange.conftest import PARTIES, SPEAKING, identity_of, sealing_key_of

SECRET = b"s" * 32


def written(model):
    return canonical_bytes(model.model_dump(mode="json"))


def test_a_roster_is_the_same_in_whatever_order_enrolments_come(parties):
    backwards = tuple(map(parties.enrolment, reversed(PARTIES)))
    made = SignedRoster.make(backwards, identity_of("coordinator"))

    assert made == parties.signed_roster
    assert made == parse(SignedRoster, written(made), what="the roster")
    assert made.roster.partners == ("partner-a", "partner-b", "partner-c")
    assert set(made.roster.public_keys) == set(SPEAKING)  # the mailbox has no voice
    assert made.mailbox.address == "127.0.0.1:8443"
    assert made.statement("nobody") is None


@given(data=st.data())
def test_no_altered_byte_of_an_enrolment_is_accepted(parties, data):
    good = written(parties.enrolment("partner-a"))
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(ProtocolError, match="the enrolment is refused"):
        parse(Enrolment, bytes(bad), what="the enrolment")


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"\xff", b"[" * 3000, b" " * 20_000])
def test_hostile_bytes_are_a_refusal(data):
    with pytest.raises(ProtocolError):
        parse(Enrolment, data, what="the enrolment")


def test_who_enrols_a_key_must_hold_it(parties):
    statement = parties.statement("partner-a", public_key=identity_of("partner-b").public_key.hex())
    with pytest.raises(ValueError, match="enrolment of 'partner-a' is not signed with its own key"):
        Enrolment.make(statement, identity_of("partner-a"))


@pytest.mark.parametrize("names", [PARTIES[1:], ("coordinator", "mailbox", "partner-a", "partner-b")])
def test_a_consortium_needs_a_coordinator_and_three_partners(parties, names):
    with pytest.raises(
        ProtocolError, match="one coordinator, at least 3 partners, and one mailbox or object"
    ):
        SignedRoster.make(tuple(map(parties.enrolment, names)), identity_of("coordinator"))


def test_where_messages_lie_in_object_storage_no_party_is_the_mailbox(parties):
    names = [name for name in PARTIES if name != "mailbox"]
    assert SignedRoster.make(tuple(map(parties.enrolment, names)), identity_of("coordinator")).mailbox is None


def test_two_parties_with_one_certificate_are_refused(parties):
    twin = parties.enrolment("partner-b", certificate=parties.certificates["partner-a"])
    others = tuple(parties.enrolment(name) for name in PARTIES if name != "partner-b")
    with pytest.raises(ProtocolError, match="two of its parties have the same certificate"):
        SignedRoster.make((*others, twin), identity_of("coordinator"))


def test_a_party_cannot_enrol_twice(parties):
    doubled = (*map(parties.enrolment, PARTIES), parties.enrolment("partner-a"))
    with pytest.raises(ProtocolError, match="two have one name"):
        SignedRoster.make(doubled, identity_of("coordinator"))


def test_a_roster_that_its_coordinator_did_not_sign_is_refused(parties):
    with pytest.raises(ProtocolError, match="not signed by its coordinator 'coordinator'"):
        SignedRoster.make(tuple(map(parties.enrolment, PARTIES)), Identity("coordinator", b"\x77" * 32))


def test_only_a_mailbox_has_an_address(parties):
    with pytest.raises(ValueError, match="a mailbox, and nobody else, has an address"):
        parties.statement("partner-a", address="127.0.0.1:1")


def test_a_sealed_secret_opens_for_its_recipient_in_its_context_only(parties):
    public = sealing_key_of("partner-b").public
    assert len(public) == SEALING_PUBLIC_BYTES
    sealed = seal(SECRET, public=public, context=b"roster 1", who="partner-b")

    assert len(sealed) == len(SECRET) + OVERHEAD_BYTES
    assert SECRET not in sealed
    assert sealing_key_of("partner-b").open(sealed, context=b"roster 1", who="partner-a") == SECRET
    for key, context in (
        (sealing_key_of("partner-c"), b"roster 1"),
        (sealing_key_of("partner-b"), b"roster 2"),
    ):
        with pytest.raises(ProtocolError, match="'partner-a' sealed does not open"):
            key.open(sealed, context=context, who="partner-a")


@given(data=st.data())
def test_no_altered_byte_of_a_seal_opens(data):
    key = sealing_key_of("partner-b")
    sealed = bytearray(seal(SECRET, public=key.public, context=b"", who="partner-b"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        key.open(bytes(sealed), context=b"", who="partner-a")


@pytest.mark.parametrize("length", [0, 31, 32, 1119, 1120, 1135])
def test_a_seal_that_is_cut_short_is_a_refusal(length):
    key = sealing_key_of("partner-b")
    sealed = seal(SECRET, public=key.public, context=b"", who="partner-b")[:length]
    with pytest.raises(ProtocolError):
        key.open(sealed, context=b"", who="partner-a")


@pytest.mark.parametrize("public", [b"", b"\0" * 1216, b"\x01" * 40, b"\xff" * 1216])
def test_nothing_is_sealed_to_a_key_that_is_none(public):
    with pytest.raises(ProtocolError, match="sealing key of 'partner-b' is malformed"):
        seal(SECRET, public=public, context=b"", who="partner-b")


def test_a_transport_key_is_readable_by_its_owner_only_and_a_broken_one_is_named(parties, tmp_path):
    assert stat.S_IMODE(parties.key("partner-a").stat().st_mode) == 0o600
    (tmp_path / "transport.pem").write_text("no key")
    with pytest.raises(SettingsError, match=r"'transport\.pem'"):
        party_context(tmp_path / "transport.pem", mailbox=parties.certificates["mailbox"])
