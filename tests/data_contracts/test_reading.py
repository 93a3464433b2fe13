"""Foreign files: every harm ends in a named refusal, and honest files come through unchanged."""

import gc
import json
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import reading
from data_contracts.catalogue import ACTIVITIES, HASHED_FINGERPRINTS, STRUCTURES
from data_contracts.contract import Contract, Field
from data_contracts.decoding import decoded_slices
from data_contracts.errors import ContractViolation
from data_contracts.limits import ReadingLimits
from data_contracts.reading import open_batches, recognise
from data_contracts.validation import validate_batches
from tests.data_contracts.tables import CANARY, activities, write

SMALL = ReadingLimits(max_batch_rows=2)
NUMBERS = Contract(name="numbers", version="1.0.0", fields=(Field("a", "int64"),))


def here(path, contract, limits=SMALL):
    """Decode in this process: the same code, without the cost of a child."""
    file_format = recognise(path, limits=limits)
    return pa.Table.from_batches(decoded_slices(path, contract, limits, file_format=file_format))


def refused(path, contract=ACTIVITIES, limits=SMALL, read=here):
    """Return the text of the refusal of a file, having checked what every refusal must be."""
    with pytest.raises(ContractViolation) as caught:
        read(path, contract, limits)
    text = "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith(path.name + ": got ")
    assert "; expected " in str(caught.value)
    assert str(path.parent) not in str(caught.value)
    assert CANARY not in text + caught.value.advice
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def in_child(path, contract, limits=None):
    """Read to the end through the real child process."""
    return list(open_batches(path, contract, limits=limits))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv", "parquet-without-suffix"])
def test_honest_files_come_through_the_child_in_order(tmp_path, name):
    table = activities(7)
    path = write(table, tmp_path / (name if "." in name else "x.parquet"))
    path = path.rename(tmp_path / name)
    opened = open_batches(path, ACTIVITIES, limits=SMALL)
    validation = validate_batches(opened, ACTIVITIES, quarantine_path=None)
    batches = list(validation)
    assert max(batch.num_rows for batch in batches) == 2
    assert pa.Table.from_batches(batches).to_pylist() == table.to_pylist()
    assert validation.report.source == name


def test_compressed_arrow_and_dictionary_parquet_come_through(tmp_path):
    plain = activities(7)
    encoded = plain.set_column(0, "compound_id", plain.column(0).dictionary_encode())
    encoded = encoded.set_column(1, "assay_id", encoded.column(1).cast(pa.large_string()))
    encoded = encoded.set_column(3, "value", encoded.column(3).cast(pa.float32()))
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for path in (
        write(encoded, tmp_path / "a.arrow", options=options),
        write(encoded, tmp_path / "a.parquet"),
    ):
        assert here(path, ACTIVITIES).to_pylist() == plain.to_pylist()


def test_lists_come_through(tmp_path):
    table = pa.table(
        {
            "structure_index": pa.array([0, 1], pa.int32()),
            "structure_key": ["0" * 32, "1" * 32],
            "fold": pa.array([0, 4], pa.int8()),
            "bits": pa.array([[1, 5], []], pa.list_(pa.uint16())),
            "counts": pa.array([[2, 1], None], pa.list_(pa.uint16())),
        }
    )
    for path in (write(table, tmp_path / "a.arrow"), write(table, tmp_path / "a.parquet")):
        assert here(path, HASHED_FINGERPRINTS).to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("content", "name", "got"),
    [
        (b"", "a.parquet", "an empty file"),
        (b"PAR1", "a.parquet", "truncated parquet"),
        (b"PAR1" + b"\0" * 100, "a.parquet", "truncated parquet"),
        (b"ARROW1\0\0" + b"\0" * 100, "a.arrow", "truncated arrow"),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "a.csv", "parquet content under a .csv name"),
        (b"PAR1" + b"\xff" * 100 + b"PAR1", "a.parquet", "cannot be read"),
        (b"\xff\xff\xff\xff" + b"\0" * 100, "a.arrow", "IPC stream"),
        (b"PK\x03\x04" + b"\0" * 100, "a.xlsx", "Excel"),
        (b"\x1f\x8b" + b"\0" * 100, "a.csv", "gzip"),
        (b"FEA1" + b"\0" * 100, "a.feather", "Feather version 1"),
        (b"compound_id\n" + CANARY.encode(), "a.txt", "neither Parquet nor Arrow"),
    ],
)
def test_files_of_a_wrong_kind_are_refused_by_name(tmp_path, content, name, got):
    path = tmp_path / name
    path.write_bytes(content)
    if got == "cannot be read":  # its magic is right, so only the child finds out
        assert got in refused(path, read=in_child, limits=None)
    else:
        assert got in refused(path)


def test_absent_files_directories_and_large_files_are_refused(tmp_path):
    assert "no readable file" in refused(tmp_path / "absent.csv")
    assert "directory" in refused(tmp_path)
    path = write(activities(), tmp_path / "a.parquet")
    assert "at most 100 bytes" in refused(path, limits=ReadingLimits(max_file_bytes=100))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, suffix, keep):
    path = write(activities(500), tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "truncated" in refused(path)


def test_a_footer_behind_missing_pages_is_refused_by_the_child(tmp_path):
    path = write(activities(5000, value=list(np.arange(5000) / 7)), tmp_path / "a.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:4] + content[len(content) // 2 :])
    assert "truncated or damaged" in refused(path, read=in_child, limits=None)


def without(table, name):
    return table.drop_columns([name])


STRING_VIEW = pa.array(["x"] * 5, pa.string_view())
EXTENSION = pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "t", "v"), pa.array(["x"] * 5))


@pytest.mark.parametrize(
    ("table", "got", "expected"),
    [
        (without(activities(), "value"), "5 columns without value", "compound_id, assay_id"),
        (activities().append_column(CANARY, pa.nulls(5)), "column 7 of 7 with a name", "only the columns"),
        (pa.Table.from_arrays([*activities().columns, pa.nulls(5)], [*activities().column_names, "unit"]), "'unit' twice", "once"),
        (activities(value=["6.5"] * 5), "column 'value' of type string", "float64"),
        (activities(value=[True] * 5), "column 'value' of type bool", "float64"),
        (activities(compound_id=list(range(5))), "column 'compound_id' of type int64", "string"),
        (activities(compound_id=[b"x"] * 5), "column 'compound_id' of type binary", "string"),
        (activities(compound_id=[["x"]] * 5), "column 'compound_id' of type list<string>", "string"),
        (activities(compound_id=[{CANARY: 1}] * 5), "column 'compound_id' of type nested", "string"),
        (activities().set_column(0, "compound_id", pa.nulls(5)), "column 'compound_id' of type null", "string"),
        (activities().set_column(0, "compound_id", STRING_VIEW), "column 'compound_id' of type string_view", "string"),
        (activities().set_column(0, "compound_id", EXTENSION), "column 'compound_id' of type extension", "string"),
        (activities(value=[2**53 + 1] * 5), "column 'value' of type int64 with content", "without loss"),
        (activities().slice(0, 0), "a table without rows", "at least one row"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused_by_name(tmp_path, table, got, expected):
    path = write(table, tmp_path / "a.arrow")
    text = refused(path) if table.num_rows else refused(path, read=in_child, limits=None)
    assert got in text
    assert expected in text


def test_columns_of_a_parquet_file_are_checked_before_any_page(tmp_path):
    path = write(activities(value=["6.5"] * 5), tmp_path / "a.parquet")
    assert "column 'value' of type string" in refused(path, read=in_child, limits=None)
    wide = pa.table({f"c{i}": [1] for i in range(100)})
    assert "100 columns" in refused(write(wide, tmp_path / "w.parquet"))


def corrupted_offset(path):
    """Write structures and damage one offset of their text, as a broken disk or an attacker would."""
    write(pa.table({"compound_id": ["aaaa", "bbbb", "cccc"], "smiles": ["CCCC", "NNNN", "OOOO"]}), path)
    content = path.read_bytes()
    offsets = np.array([0, 4, 8, 12], dtype="<i4").tobytes()
    assert offsets in content
    path.write_bytes(content.replace(offsets, np.array([0, 4, 2_000_000_000, 12], dtype="<i4").tobytes()))
    return path


def test_a_corrupted_offset_in_a_file_is_refused_and_nothing_crashes(tmp_path):
    text = refused(corrupted_offset(tmp_path / "a.arrow"), STRUCTURES, read=in_child, limits=None)
    assert "inner structure is invalid" in text


def test_text_that_is_not_utf8_is_refused_in_arrow_and_parquet(tmp_path):
    binary = pa.array([b"C\xe9"] * 5)
    text = pa.StringArray.from_buffers(5, binary.buffers()[1], binary.buffers()[2])
    table = activities().set_column(0, "compound_id", text)
    for name in ("a.arrow", "a.parquet"):
        assert "not UTF-8" in refused_advice(write(table, tmp_path / name))


def refused_advice(path):
    with pytest.raises(ContractViolation) as caught:
        here(path, ACTIVITIES)
    return caught.value.advice


def test_a_flipped_bit_in_a_checksummed_page_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    table = activities(1000, compound_id=[f"{CANARY}{i}" for i in range(1000)])
    write(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[content.index(f"{CANARY}500".encode())] ^= 1
    path.write_bytes(bytes(content))
    assert "cannot be read as parquet" in refused(path, read=in_child, limits=None)


# ---------------------------------------------------------------- decompression bombs


def test_a_30_000_fold_arrow_bomb_is_refused_without_being_decompressed(tmp_path):
    table = pa.table({"a": pa.array(np.zeros(50_000_000, np.int64))})
    path = write(table, tmp_path / "a.arrow", options=pa.ipc.IpcWriteOptions(compression="zstd"))
    del table
    assert path.stat().st_size < 13_000  # decodes to 400 MB
    assert "decompression bomb" in refused(path, NUMBERS, read=in_child, limits=None)


def test_a_parquet_file_whose_dictionary_hides_4_gb_is_refused_while_streaming(tmp_path):
    hidden = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2_000_000, np.int32)), pa.array(["C" * 1_000]))
    table = pa.table({"compound_id": hidden, "smiles": hidden})
    path = write(table, tmp_path / "a.parquet", compression="zstd")
    assert path.stat().st_size < 500_000
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size < 10_000_000  # the footer hides it
    assert "MiB when decoded" in refused(path, STRUCTURES, read=in_child, limits=None)


def test_a_parquet_page_that_unpacks_to_300_mb_is_refused(tmp_path):
    one = pa.table({"compound_id": ["x"], "smiles": ["C" * 300_000_000]})
    path = write(
        one, tmp_path / "a.parquet", compression="zstd", use_dictionary=False, write_statistics=False
    )
    del one
    assert path.stat().st_size < 100_000
    assert "decompression bomb" in refused(path, STRUCTURES, read=in_child, limits=None)


def test_caps_on_rows_batches_and_row_size_are_kept(tmp_path):
    path = write(activities(9), tmp_path / "a.parquet", row_group_size=1)
    assert "9 rows" in refused(path, limits=ReadingLimits(max_rows=8))
    assert "9 row groups" in refused(path, limits=ReadingLimits(max_batches=8))
    path = write(activities(9), tmp_path / "a.arrow")
    assert "9 rows or more" in refused(path, limits=ReadingLimits(max_rows=8))
    assert "a row of" in refused(path, limits=ReadingLimits(max_batch_bytes=10))
    halves = here(path, ACTIVITIES, ReadingLimits(max_batch_bytes=150))
    assert halves.column(0).num_chunks > 2
    assert halves.to_pylist() == activities(9).to_pylist()


def test_the_kernel_caps_memory_time_files_and_core_dumps_of_the_child():
    code = (
        "import resource as r; from data_contracts.decoding import confine; "
        "from data_contracts.limits import ReadingLimits; confine(ReadingLimits(), file_bytes=10**6); "
        "print([r.getrlimit(k)[1] for k in (r.RLIMIT_CORE, r.RLIMIT_FSIZE, r.RLIMIT_CPU, r.RLIMIT_AS)])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    core, written, seconds, memory = json.loads(said)
    assert (core, written, seconds) == (0, 0, ReadingLimits().max_cpu_seconds)
    assert 0 < memory < 2 * 1024**3


# ---------------------------------------------------------------- the child process


@pytest.fixture
def children(monkeypatch):
    """Collect the child processes that a test starts."""
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(reading.subprocess, "Popen", Recorded)
    return started


def test_a_child_that_dies_is_a_refusal_and_not_a_shorter_table(tmp_path, children):
    path = write(activities(50_000), tmp_path / "a.parquet")
    opened = open_batches(path, ACTIVITIES, limits=SMALL)
    next(opened)
    children[0].kill()
    with pytest.raises(
        ContractViolation, match=r"a\.parquet: got a file whose decoding ended .* \(exit code -9"
    ):
        list(opened)


def test_fewer_rows_than_the_child_sent_are_a_refusal(tmp_path, monkeypatch):
    received = reading._received
    monkeypatch.setattr(reading, "_received", lambda process: list(received(process))[:-1])
    path = write(activities(7), tmp_path / "a.parquet")
    with pytest.raises(ContractViolation, match="ended the reading process"):
        list(open_batches(path, ACTIVITIES, limits=SMALL))


def test_an_abandoned_reading_ends_its_child(tmp_path, children):
    path = write(activities(50_000), tmp_path / "a.parquet")
    closed = open_batches(path, ACTIVITIES, limits=SMALL)
    assert next(closed).num_rows == 2
    closed.close()
    forgotten = open_batches(path, ACTIVITIES, limits=SMALL)
    assert next(forgotten).num_rows == 2
    del forgotten
    gc.collect()
    assert [process.poll() is not None for process in children] == [True, True]


def test_the_child_gets_no_secret_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTET_SECRET", CANARY)
    process = reading._start(b"")
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    for pipe in (process.stdout, process.stderr):
        pipe.read()
        pipe.close()
    process.wait()
    assert CANARY.encode() not in environment
