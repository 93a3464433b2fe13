"""What the service refuses, from whom, and before it has read what; and how its callers live through an outage."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.envelope import MAX_ENVELOPE_BYTES, Kind, Slot
from data_contracts.errors import ProtocolError, WorkFailed
from tasks.exchange.durable_files import SCRAP_PREFIX
from tasks.exchange.https_addresses import address_of_blob, address_of_slot, blob_at, slot_at
from tasks.exchange.https_mailbox import HttpsMailbox
from tasks.exchange.identity import Identity
from tasks.exchange.transport_keys import make_transport_key, party_context
from tasks.rounds.patience import MAILBOX_THREADS, Patience, beside
from tests.exchange.conftest import RUN, SPEAKING
from tests.exchange.test_board import PLAN

ADVERT = Slot(RUN, 3, 0, Kind.ADVERT, "partner-a")


def ask(service, name, method, address, *, body=None, headers=None):
    """One bare request; status and body."""
    tls = party_context(service.parties.key(name), mailbox=service.parties.certificates["mailbox"])
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=tls, timeout=20)
    try:
        connection.request(method, address, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def envelope_of(service, name="partner-a", **changed):
    """A signed envelope, made where the mailbox does not see it."""
    board = service.operator(name, **changed)
    board.post_json(Kind.ADVERT, {}, plan=PLAN)
    path = service.place(ADVERT._replace(sender=name))
    data = path.read_bytes()
    path.unlink()
    return data


def quarantined(service):
    return [json.loads(path.read_bytes())["why"] for path in service.service.quarantine.reasons()]


def test_a_caller_without_a_pinned_certificate_is_not_even_heard(service, tmp_path):
    make_transport_key(tmp_path / "stranger.pem", name="partner-a", now=datetime(2026, 11, 1, tzinfo=UTC))
    tls = party_context(tmp_path / "stranger.pem", mailbox=service.parties.certificates["mailbox"])

    def first_byte(connection):
        connection.sendall(b"GET /v1/runs HTTP/1.1\r\n\r\n")
        return connection.recv(1)

    address = ("127.0.0.1", service.port)
    with (
        socket.create_connection(address, timeout=20) as plain,
        tls.wrap_socket(plain) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        first_byte(connection)


def test_a_party_does_not_speak_to_a_mailbox_that_is_not_the_pinned_one(service):
    tls = party_context(service.parties.key("partner-a"), mailbox=service.parties.certificates["coordinator"])
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=tls, timeout=20)
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/v1/runs")
    connection.close()


def test_nobody_posts_at_the_place_of_another(service):
    data = envelope_of(service)
    assert ask(service, "partner-b", "PUT", address_of_slot(ADVERT), body=data)[0] == 403
    assert service.below.read(ADVERT) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 100, b"[" * 4096])
def test_bytes_that_are_no_envelope_are_refused_and_kept_as_evidence(service, data):
    assert ask(service, "partner-a", "PUT", address_of_slot(ADVERT), body=data)[0] == 422
    assert service.below.read(ADVERT) is None
    (why,) = quarantined(service)
    assert why.startswith("'partner-a' put what is refused")


def test_a_message_that_its_sender_did_not_sign_is_refused_at_the_door(service):
    data = envelope_of(service, identity=Identity("partner-a", b"\x77" * 32))
    assert ask(service, "partner-a", "PUT", address_of_slot(ADVERT), body=data)[0] == 422
    assert "no valid signature" in quarantined(service)[0]


def test_a_party_whose_message_is_refused_reads_why(service):
    impostor = service.board("partner-a", identity=Identity("partner-a", b"\x77" * 32))
    with pytest.raises(ProtocolError, match="mailbox refuses 'advert' of 'partner-a': 422"):
        impostor.post_json(Kind.ADVERT, {}, plan=PLAN)


@pytest.mark.parametrize(
    ("address", "size"),
    [(address_of_slot(ADVERT), MAX_ENVELOPE_BYTES + 1), (address_of_blob("0" * 64), 2**20 + 1)],
)
def test_too_large_a_body_is_refused_by_its_announced_size_before_it_is_read(service, address, size):
    status, _ = ask(service, "partner-a", "PUT", address, headers={"Content-Length": str(size)})
    assert status == 413


@pytest.mark.parametrize("size", ["", "-1", "1e3", "0x10", "9" * 30, "\u0661"])
def test_a_body_of_unclear_size_is_refused(service, size):
    headers = {"Content-Length": size.encode().decode("latin-1"), "Transfer-Encoding": "chunked"}
    assert ask(service, "partner-a", "PUT", address_of_blob("0" * 64), headers=headers)[0] == 411


def test_a_large_refused_body_ends_in_an_answer_and_not_in_a_retry(service):
    with pytest.raises(ProtocolError, match="refuses a x@1 of 3145728 bytes: 413"):
        service.mailbox("partner-a").put_body([bytes(3 * 2**20)], contract="x@1")


@pytest.mark.parametrize("body", [b"other", b"", b"hello, and more"])
def test_a_blob_that_is_not_its_digest_leaves_nothing(service, body):
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"
    assert ask(service, "partner-a", "PUT", address_of_blob(digest), body=body)[0] == 422
    assert ask(service, "partner-a", "GET", address_of_blob(digest))[0] == 404
    assert ask(service, "partner-a", "PUT", address_of_blob(digest), body=b"hello")[0] == 201
    assert ask(service, "partner-b", "GET", address_of_blob(digest)) == (200, b"hello")
    assert [path.name for path in service.below.blobs.root.iterdir()] == [digest]


@pytest.mark.parametrize("name", [name for name in SPEAKING if name != "coordinator"])
def test_only_the_coordinator_removes_blobs(service, name):
    reference = service.mailbox("partner-a").put_body([b"body"], contract="x@1")
    assert ask(service, name, "DELETE", address_of_blob(reference.sha256))[0] == 403
    assert reference in service.below.blobs


def test_nothing_but_slots_and_digests_can_be_named(service, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    for address in (
        "/v1/blobs/../../secret",
        "/v1/blobs/..%2f..%2fsecret",
        "/../secret",
        "//etc/passwd",
        "/v1/messages/run-1/3/0/advert/../../../../../secret",
        "/v1/messages/run-1/03/0/advert/partner-a",
        "/v1/messages/run-1/3/0/nonsense/partner-a",
        "file:///etc/passwd",
    ):
        assert ask(service, "partner-a", "GET", address) == (404, b"")
        assert ask(service, "coordinator", "PUT", address, body=b"x")[0] in {403, 404}


@given(st.text(alphabet="./%abcdef0123456789v-\n\x00", max_size=90))
def test_an_address_is_a_slot_or_a_digest_only_if_it_is_the_one_way_to_write_it(address):
    slot, digest = slot_at(address), blob_at(address)
    assert slot is None or address_of_slot(slot) == address
    assert digest is None or address_of_blob(digest) == address
    assert blob_at(f"/v1/blobs/{address}") in {None, address}


def test_a_full_disk_is_waited_for(service, monkeypatch):
    reported = []

    def full(*arguments, **named):
        if not reported:
            reported.append(True)
            raise OSError(28, "No space left on device")
        return original(*arguments, **named)

    original = service.service.mailbox.post
    monkeypatch.setattr(service.service.mailbox, "post", full)
    service.board("partner-a").post_json(Kind.ADVERT, {}, plan=PLAN)
    assert reported
    assert service.below.read(ADVERT) is not None


def test_an_outage_ends_in_a_pause_and_the_same_request_again(service, tmp_path):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 4:
            service.start()

    mailbox = HttpsMailbox(service.connection("partner-a", pause=pause), copies=tmp_path / "copies")
    reference = mailbox.put_body([b"before"], contract="x@1")
    service.stop()
    assert mailbox.put_body([b"after"], contract="x@1") in service.below.blobs
    assert reference in service.below.blobs
    assert pauses == [0.05, 0.1, 0.2, 0.4]
    mailbox._connection.close()


def test_an_outage_stops_neither_the_event_loop_nor_the_end_of_the_command(service, tmp_path):
    connection = service.connection("partner-a", outage_seconds=3600.0)
    mailbox = HttpsMailbox(connection, copies=tmp_path / "copies")
    service.stop()

    async def look_and_be_interrupted():
        looking = Patience(3600.0).until(lambda: mailbox.read(ADVERT))
        with pytest.raises(TimeoutError):  # the loop goes on, so a time limit comes to its right
            await asyncio.wait_for(looking, timeout=0.2)
        connection.close()
        everybody = threading.Barrier(MAILBOX_THREADS)  # passes once no thread waits for the mailbox any more
        await asyncio.gather(*(beside(lambda: everybody.wait(timeout=20)) for _ in range(MAILBOX_THREADS)))

    asyncio.run(look_and_be_interrupted())


def test_an_outage_that_does_not_end_is_an_error_and_never_reads_as_nothing_posted(service, tmp_path):
    waited = []
    connection = service.connection("partner-a", outage_seconds=60.0, pause=waited.append)
    mailbox = HttpsMailbox(connection, copies=tmp_path / "copies")
    service.stop()
    with pytest.raises(WorkFailed, match="did not answer for 60 s"):
        mailbox.read(ADVERT)
    assert 60 <= sum(waited) <= 66
    assert max(waited) == 5


def test_a_mailbox_that_was_killed_while_it_wrote_starts_without_scraps(service):
    reference = service.mailbox("partner-a").put_body([b"whole"], contract="x@1")
    service.stop()
    scrap = service.below.blobs.root / f"{SCRAP_PREFIX}x1"
    scrap.write_bytes(b"torn")
    service.start()
    assert [path.name for path in service.below.blobs.root.iterdir()] == [reference.sha256]


def test_the_mailbox_shows_its_clock(service):
    assert abs(service.mailbox("partner-a")._connection.clock() - datetime.now(UTC).timestamp()) < 60


def test_a_body_that_is_there_already_is_read_whole_before_the_next_request(service):
    body = b"DELETE /v1/blobs/" + b"0" * 64 + b" HTTP/1.1\r\n\r\n"
    address = address_of_blob(hashlib.sha256(body).hexdigest())
    tls = party_context(service.parties.key("partner-a"), mailbox=service.parties.certificates["mailbox"])
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, context=tls, timeout=20)
    with contextlib.closing(connection):
        for method, sent in (
            ("PUT", body),
            ("PUT", body),
            ("GET", None),
            ("PUT", b"x" * len(body)),
            ("GET", None),
        ):
            connection.request(method, address, body=sent)
            answer = connection.getresponse()
            found = answer.status, answer.read()
            if method == "GET":
                assert found == (200, body)
            else:
                assert found[0] == (201 if sent == body else 422)
