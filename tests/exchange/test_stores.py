"""Blobs and secrets: whole or absent, readable by their owner only."""

import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.errors import ProtocolError, SettingsError, UpdateMismatch
from data_contracts.references import BlobReference
from tasks.exchange.blob_store import BlobStore
from tasks.exchange.durable_files import create_once, replace_whole
from tasks.exchange.identity import Identity, Roster, secret_file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(chunks=st.lists(st.binary(max_size=50), max_size=5))
def test_a_blob_comes_back_as_it_went_in_whatever_its_pieces(tmp_path, chunks):
    store = BlobStore(tmp_path)

    reference = store.put(chunks, contract="x@1")

    assert bytes(store.open(reference, who="me")) == b"".join(chunks)
    assert store.put([b"".join(chunks)], contract="x@1") == reference


def test_a_known_blob_has_the_published_sha256(tmp_path):
    reference = BlobStore(tmp_path).put([b"a", b"bc"], contract="x@1")

    # FIPS 180-2, appendix B.1
    assert reference.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_blob_is_named_with_who_announced_it(tmp_path):
    with pytest.raises(ProtocolError, match="partner-a"):
        BlobStore(tmp_path).open(BlobReference(sha256="0" * 64, bytes=3, contract="x@1"), who="partner-a")


def test_a_torn_blob_is_refused_and_repaired_by_storing_it_again(tmp_path):
    store = BlobStore(tmp_path)
    reference = store.put([b"hello"], contract="x@1")
    store.path(reference).write_bytes(b"hel")

    with pytest.raises(UpdateMismatch):
        store.open(reference, who="me")
    store.put([b"hello"], contract="x@1")
    assert bytes(store.open(reference, who="me")) == b"hello"


def test_the_first_writer_wins_and_leaves_no_scraps(tmp_path):
    assert create_once(tmp_path / "f", [b"first"])
    assert not create_once(tmp_path / "f", [b"second"])
    replace_whole(tmp_path / "g", [b"third"])

    assert (tmp_path / "f").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g"]


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "keys" / "identity"

    secret = secret_file(path)

    assert len(secret) == 32
    assert secret == secret_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_all_who_make_a_secret_at_once_read_the_same_whole_one(tmp_path):
    for turn in range(50):
        start = Barrier(4)

        def make(path=tmp_path / f"key-{turn}", start=start):
            start.wait()
            return secret_file(path)

        with ThreadPoolExecutor(4) as pool:
            made = [future.result() for future in [pool.submit(make) for _ in range(4)]]
        assert len(set(made)) == 1


@pytest.mark.parametrize(("dies_in", "stands"), [("os.fsync", False), ("os.unlink", True)])
def test_a_kill_while_a_secret_is_made_leaves_none_or_a_whole_one_under_one_name(tmp_path, dies_in, stands):
    path = tmp_path / "keys" / "key"
    program = f"""
import os, pathlib, signal
from tasks.exchange.identity import secret_file
{dies_in} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
secret_file(pathlib.Path({str(path)!r}))
"""
    died = subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2])
    assert died.returncode == -signal.SIGKILL
    left = path.read_bytes() if path.exists() else None
    assert (left is not None) == stands
    assert len(list(path.parent.iterdir())) == 1 + stands  # what it was written under

    secret = secret_file(path)

    assert len(secret) == 32
    assert left in (None, secret)
    assert path.stat().st_nlink == 1
    assert not any(one.read_bytes() == secret for one in path.parent.iterdir() if one != path)


def test_empty_pieces_of_any_shape_write_nothing(tmp_path):
    assert create_once(tmp_path / "f", [np.zeros((3, 0)), b"", b"whole", np.zeros((2, 2), np.uint8)])
    assert (tmp_path / "f").read_bytes() == b"whole" + bytes(4)


def test_a_secret_that_others_can_read_is_refused_without_showing_it(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"s" * 32)
    path.chmod(0o644)

    with pytest.raises(SettingsError, match="chmod 600") as refusal:
        secret_file(path)
    assert "ssss" not in str(refusal.value)


def test_a_roster_with_one_key_for_two_parties_is_refused():
    key = Identity("a", b"\x01" * 32).public_key.hex()

    with pytest.raises(ValueError, match="same key"):
        Roster(
            coordinator="a",
            public_keys={"a": key, "b": key, "c": Identity("c", b"\x02" * 32).public_key.hex()},
        )


def test_a_signature_follows_rfc_8032():
    # RFC 8032, section 7.1, test 1: empty message.
    identity = Identity(
        "a", bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )

    assert identity.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert (
        identity.sign(b"")
        .hex()
        .startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
    )
