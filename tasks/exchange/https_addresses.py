"""What the mailbox's service is asked: the addresses of messages, blobs and the list of runs.

Why: both ends build and read addresses in one place, and an address can name nothing but a slot or a digest.
Runs: anywhere. Source: own.

::

    /v1/messages/RUN/ROUND/ATTEMPT/KIND/SENDER    GET, PUT (once)
    /v1/blobs/SHA256                              GET, HEAD, PUT, DELETE (coordinator)
    /v1/runs                                      GET: a JSON list
    /v1/time                                      GET: seconds since 1970
"""

import re

from data_contracts.envelope import Kind, Slot

TIME = "/v1/time"
RUNS = "/v1/runs"
_SLOT = re.compile(
    r"/v1/messages/([a-z0-9][a-z0-9-]{2,63})/(0|[1-9][0-9]{0,5})/(0|[1-9][0-9]{0,3})/([a-z-]{1,40})/([a-z][a-z0-9-]{0,39})"
)
BODIES, SEALED = (
    "blobs",
    "sealed",
)  # the shelves: blobs by their digest; sealed ones by their run and a name that says nothing
_BLOB = re.compile(r"/v1/(?:(blobs)/([0-9a-f]{64})|(sealed)/([a-z0-9][a-z0-9-]{2,63}/[0-9a-f]{64}))")


def address_of_slot(slot: Slot) -> str:
    """Where a message lies."""
    return f"/v1/messages/{slot.run_id}/{slot.round}/{slot.attempt}/{slot.kind.value}/{slot.sender}"


def address_of_blob(name: str, *, shelf: str = BODIES) -> str:
    """Where a blob lies."""
    return f"/v1/{shelf}/{name}"


def slot_at(address: str) -> Slot | None:
    """The slot that an address names; None if it names none."""
    found = _SLOT.fullmatch(address)
    if found is None or found[4] not in set(Kind):
        return None
    return Slot(found[1], int(found[2]), int(found[3]), Kind(found[4]), found[5])


def blob_at(address: str) -> tuple[str, str] | None:
    """The shelf and the name of the blob that an address names; None if it names none."""
    found = _BLOB.fullmatch(address)
    return None if found is None else (found[1] or found[3], found[2] or found[4])
