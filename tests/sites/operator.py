"""What whoever runs the mailbox can read."""

import json

from data_contracts.envelope import Kind
from tasks.exchange.run_seal import OPEN_KINDS, SEALED_CONTRACT
from tests.messages import readable


def assert_the_operator_reads_nothing(hosts, dataset):
    """Neither a plan nor an outcome, a share or a model of a finished run lies open in the mailbox's directory."""
    root = hosts.home("mailbox") / "mailbox"
    digest = hosts.result("coordinator")["trunk_sha256"]
    trunk = (hosts.home("coordinator") / "runs" / "first" / "received" / digest).read_bytes()
    pieces = [trunk[at : at + 32] for at in range(len(trunk) // 2, len(trunk) // 2 + 3200, 32)]
    assert dataset.catalogue
    needles = [digest, dataset.name, "hidden", '"senders":', "validation/", *dataset.catalogue[:5]]
    files = {path: readable(path) for path in root.rglob("*") if path.is_file()}
    for needle in [each for each in pieces if each.strip(b"\0")] + [text.encode() for text in needles]:
        found = [path.relative_to(root) for path, data in files.items() if needle in data]
        assert not found, f"{needle!r} lies open"

    open_kinds = set()
    for path in (root / "messages").rglob("*.json"):
        body = json.loads(path.read_bytes())["head"]["body"]
        assert (body["contract"] == SEALED_CONTRACT) == (Kind(path.parent.name) not in OPEN_KINDS)
        if body["contract"] != SEALED_CONTRACT:
            open_kinds.add(Kind(path.parent.name))
    assert open_kinds == OPEN_KINDS
    assert any(path.is_file() for path in (root / "sealed" / "first").iterdir())
