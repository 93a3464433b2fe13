"""What every mailbox does, whether a directory or the service."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.envelope import Kind, Slot
from data_contracts.errors import Equivocation, ProtocolError
from data_contracts.references import BlobReference
from tests.exchange.conftest import RUN


def test_runs_are_listed_once_anything_was_posted(store):
    assert store.mailbox("partner-a").runs() == ()
    store.board("coordinator").post_json(Kind.RUN_CLOSED, {})

    assert store.mailbox("partner-a").runs() == (RUN,)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(chunks=st.lists(st.binary(max_size=50), max_size=4))
def test_a_body_comes_back_as_it_went_in_whatever_its_pieces(store, chunks):
    reference = store.mailbox("partner-a").put_body(chunks, contract="x@1")

    found = store.mailbox("partner-b").blobs
    assert reference in found
    assert bytes(found.open(reference, who="partner-a")) == b"".join(chunks)
    assert found.path(reference).read_bytes() == b"".join(chunks)


def test_a_discarded_body_is_gone_for_everybody_and_may_be_sent_again(store):
    reference = store.mailbox("partner-a").put_body([b"large"], contract="x@1")
    store.mailbox("coordinator").blobs.discard(reference)

    assert reference not in store.mailbox("partner-b").blobs
    with pytest.raises(ProtocolError, match="'partner-a' announced is not in the store"):
        store.mailbox("partner-b").blobs.open(reference, who="partner-a")
    assert store.mailbox("partner-a").put_body([b"large"], contract="x@1") == reference
    assert bytes(store.mailbox("partner-b").blobs.open(reference, who="partner-a")) == b"large"


def test_the_first_of_two_messages_stands_whoever_comes_second(store):
    board = store.board("partner-a")
    board.post_json(Kind.ROSTER_ACCEPTED, {"digest": "a"})
    again = store.board("partner-a")
    again.post_json(Kind.ROSTER_ACCEPTED, {"digest": "a"})

    with pytest.raises(Equivocation, match="the first one stands"):
        again.post_json(Kind.ROSTER_ACCEPTED, {"digest": "b"})
    assert store.board("partner-b").read(Kind.ROSTER_ACCEPTED, "partner-a").json() == {"digest": "a"}


def test_an_unknown_blob_is_in_no_mailbox(store):
    assert BlobReference(sha256="0" * 64, bytes=3, contract="x@1") not in store.mailbox("partner-a").blobs


def test_an_empty_slot_reads_as_none(store):
    assert store.mailbox("partner-a").read(Slot(RUN, 1, 0, Kind.PLAN, "coordinator")) is None
