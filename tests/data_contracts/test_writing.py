"""Our own artefacts: perfect when written, checked when read, all or nothing."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import ACTIVITIES, HASHED_FINGERPRINTS, LABELS, STRUCTURES
from data_contracts.contract import CONTRACT_KEY, DIGEST_KEY, Contract
from data_contracts.errors import ContractViolation
from data_contracts.validation import validate_batches
from data_contracts.writing import read_table, write_table
from tests.data_contracts.tables import CANARY, activities, write

BIT_SETS = st.sets(st.integers(0, 32_767), max_size=5)


def fingerprints(bit_sets):
    count = len(bit_sets)
    return pa.table(
        {
            "structure_index": pa.array(range(count), pa.int32()),
            "structure_key": pa.array([f"{i:032x}" for i in range(count)], pa.string()),
            "fold": pa.array([i % 5 for i in range(count)], pa.int8()),
            "bits": pa.array([sorted(bits) for bits in bit_sets], pa.list_(pa.uint16())),
            "counts": pa.array([None] * count, pa.list_(pa.uint16())),
        }
    )


@settings(max_examples=40, deadline=None)
@given(bit_sets=st.lists(BIT_SETS, max_size=12), batch_rows=st.integers(1, 12))
def test_what_is_written_is_read_again_and_its_reference_is_right(tmp_path_factory, bit_sets, batch_rows):
    path = tmp_path_factory.mktemp("w") / "fingerprints.arrow"
    table = fingerprints(bit_sets)
    reference = write_table(path, HASHED_FINGERPRINTS, pa.Table.from_batches(table.to_batches(max_chunksize=batch_rows), schema=table.schema))  # fmt: skip
    again = read_table(path, HASHED_FINGERPRINTS)
    assert again.to_pylist() == table.to_pylist()
    assert again.schema.equals(HASHED_FINGERPRINTS.schema, check_metadata=True)
    assert reference.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reference.bytes == path.stat().st_size
    assert reference.contract == "hashed_fingerprints@1.1.0"
    assert [entry.name for entry in path.parent.iterdir()] == ["fingerprints.arrow"]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    first = write_table(tmp_path / "a.arrow", ACTIVITIES, activities())
    assert write_table(tmp_path / "b.arrow", ACTIVITIES, activities()) == first


def test_a_table_that_is_read_is_mapped_and_not_loaded(tmp_path):
    table = pa.table({"structure_index": pa.array(np.arange(1_000_000, dtype=np.int32))})
    table = table.append_column("endpoint_index", pa.array(np.zeros(1_000_000, np.int32)))
    table = table.append_column("label", pa.array(np.ones(1_000_000, np.int8)))
    write_table(tmp_path / "labels.arrow", LABELS, table)
    before = pa.total_allocated_bytes()
    again = read_table(tmp_path / "labels.arrow", LABELS)
    assert pa.total_allocated_bytes() - before < 100_000  # nine megabytes stay in the file
    assert again.num_rows == 1_000_000


def test_a_stream_is_written_while_it_is_validated(tmp_path):
    validation = validate_batches(activities(4, unit=["p", "p", "x", "p"]).to_batches(max_chunksize=1), ACTIVITIES, quarantine_path=None)  # fmt: skip
    write_table(tmp_path / "a.arrow", ACTIVITIES, validation)
    assert read_table(tmp_path / "a.arrow", ACTIVITIES).num_rows == 3
    assert validation.report.rows_quarantined == 1


def test_a_refusal_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.arrow"
    old = write_table(path, ACTIVITIES, activities())
    with pytest.raises(
        ContractViolation, match=r"a\.arrow: got 1 rows from row 1 on that break rule one_of of unit"
    ):
        write_table(path, ACTIVITIES, activities(2, unit=["p", CANARY]))
    refusing = validate_batches(activities(2, unit=["x", "x"]).to_batches(), ACTIVITIES, quarantine_path=None)
    with pytest.raises(ContractViolation, match="2 of 2 rows"):
        write_table(path, ACTIVITIES, refusing)
    with pytest.raises(ContractViolation, match="without value"):
        write_table(path, ACTIVITIES, activities(0).drop_columns(["value"]))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.arrow"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == old.sha256


@pytest.mark.parametrize(
    ("table", "got"),
    [
        (activities(), "without a contract in its metadata"),
        (
            activities().replace_schema_metadata({CONTRACT_KEY: b"activities@1.1.0", DIGEST_KEY: b"0"}),
            "another digest",
        ),
        (
            activities().replace_schema_metadata({CONTRACT_KEY: b"activities@9.0.0"}),
            "another contract or version",
        ),
        (activities(unit=["x"] * 5).replace_schema_metadata(ACTIVITIES.schema.metadata), "break rule one_of"),
        (activities(value=["1"] * 5).replace_schema_metadata(ACTIVITIES.schema.metadata), "type string"),
    ],
)
def test_an_artefact_that_is_not_what_it_should_be_is_refused(tmp_path, table, got):
    path = write(table, tmp_path / "a.arrow")
    with pytest.raises(ContractViolation, match=got):
        read_table(path, ACTIVITIES)


def test_damaged_absent_and_compressed_artefacts_are_refused_without_a_trace(tmp_path):
    path = tmp_path / "a.arrow"
    write_table(path, ACTIVITIES, activities(500))
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-10], content[:400] + content[800:]):
        path.write_bytes(damaged)
        with pytest.raises(ContractViolation, match="absent, truncated or damaged") as caught:
            read_table(path, ACTIVITIES)
        assert caught.value.__context__ is None
    with pytest.raises(ContractViolation, match="absent, truncated or damaged"):
        read_table(tmp_path / "absent.arrow", ACTIVITIES)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    write(activities(500).replace_schema_metadata(ACTIVITIES.schema.metadata), path, options=options)
    with pytest.raises(ContractViolation, match="compressed"):
        read_table(path, ACTIVITIES)


def test_a_corrupted_offset_in_an_artefact_is_refused(tmp_path):
    path = tmp_path / "a.arrow"
    write_table(path, STRUCTURES, pa.table({"compound_id": ["aaaa", "bbbb"], "smiles": ["CCCC", "NNNN"]}))
    good, bad = (np.array([0, middle, 8], dtype="<i4").tobytes() for middle in (4, 2_000_000_000))
    assert good in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(good, bad))
    with pytest.raises(ContractViolation, match="inner structure"):
        read_table(path, STRUCTURES)


def test_contract_metadata_names_version_and_digest():
    assert ACTIVITIES.schema.metadata == {
        b"motet.contract": b"activities@1.1.0",
        b"motet.contract.digest": hashlib.sha256(ACTIVITIES.to_bytes()).hexdigest().encode(),
    }
    other = Contract(ACTIVITIES.name, "1.0.1", ACTIVITIES.fields, ACTIVITIES.rules)
    assert other.digest != ACTIVITIES.digest
