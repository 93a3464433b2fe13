"""Damaged and hostile files of every format through the real child: named refusal, or accepted + quarantined = read."""

import resource
import tempfile
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import ACTIVITIES
from data_contracts.errors import ContractViolation
from data_contracts.limits import ReadingLimits
from data_contracts.reading import open_batches
from data_contracts.validation import validate_batches
from tests.data_contracts.tables import CANARY, activities, write

N_ROWS = 64
LIMITS = ReadingLimits(max_batch_rows=16, max_cpu_seconds=20)
TABLE = activities(
    N_ROWS,
    compound_id=[f"{CANARY}{number}" for number in range(N_ROWS)],
    assay_id=[f"A{number % 5}" for number in range(N_ROWS)],
    value=[4.0 + number / 16 for number in range(N_ROWS)],
)


def write_csv(table, path):
    pa.csv.write_csv(table, path)
    return path


WRITERS = {
    "plain.parquet": lambda path: write(TABLE, path, compression="none", use_dictionary=False, row_group_size=20),
    "packed.parquet": lambda path: write(TABLE, path, compression="zstd"),
    "plain.arrow": lambda path: write(TABLE, path),
    "packed.arrow": lambda path: write(TABLE, path, options=pa.ipc.IpcWriteOptions(compression="zstd")),
    "rows.csv": lambda path: write_csv(TABLE, path),
}  # fmt: skip
LENGTHS = [0, 1, -1, 2**31 - 1, -(2**31), 2**62, N_ROWS, N_ROWS + 1]
NOISE = st.one_of(
    st.binary(min_size=1, max_size=24),
    st.sampled_from(LENGTHS).map(lambda number: number.to_bytes(8, "little", signed=True)),
    st.sampled_from([b"\0", b'"', b"\n", b"\r\n", b",", b"\xff\xfe", b"\xef\xbb\xbf", b"PAR1", b"ARROW1", b"nan", b"1e999"]),
)  # fmt: skip
HARM = st.lists(
    st.tuples(st.sampled_from(["overwrite", "insert", "remove", "repeat", "cut"]), st.floats(0, 1), NOISE),
    min_size=1,
    max_size=4,
)


def harmed(content, harm):
    """Apply damages one after the other, each at its share of the file."""
    for kind, where, noise in harm:
        at = int(where * len(content))
        if kind == "overwrite":
            content = content[:at] + noise + content[at + len(noise) :]
        elif kind == "insert":
            content = content[:at] + noise + content[at:]
        elif kind == "remove":
            content = content[:at] + content[at + len(noise) :]
        elif kind == "repeat":
            content = content[: at + 200] + content[at:]
        else:
            content = content[:at]
    return content


def check(name, harm):
    """Read what is left of the file; whatever happens, no value is said and no row is lost in silence."""
    with tempfile.TemporaryDirectory() as place:
        path = WRITERS[name](Path(place) / name)
        path.write_bytes(harmed(path.read_bytes(), harm))
        try:
            validation = validate_batches(
                open_batches(path, ACTIVITIES, limits=LIMITS), ACTIVITIES, quarantine_path=Path(place) / "q.arrow"
            )  # fmt: skip
            accepted = sum(batch.num_rows for batch in validation)
        except ContractViolation as refusal:
            said = "".join(traceback.format_exception(refusal)) + refusal.advice
            assert CANARY not in said
            assert str(refusal).startswith(f"{name}: got ")  # noqa: PT017 - a refusal is one of two good ends
        else:
            report = validation.report
            assert report.rows_accepted == accepted
            assert report.rows_read == report.rows_accepted + report.rows_quarantined
            if not name.endswith(".csv"):
                assert report.rows_read <= 2 * N_ROWS


PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@settings(PATIENT, max_examples=6)
@pytest.mark.parametrize("name", WRITERS)
@given(harm=HARM)
def test_a_damaged_file_is_refused_by_name_or_every_row_is_accounted_for(name, harm):
    check(name, harm)


def peak_of_children():
    """Resident KiB of the largest child that this process ever had."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(PATIENT, max_examples=400)
@pytest.mark.parametrize("name", WRITERS)
@given(harm=HARM)
def test_so_are_two_thousand_of_them(name, harm):
    before = peak_of_children()
    check(name, harm)
    assert peak_of_children() <= max(before, 1 << 20)  # no reading child grew beyond 1 GiB
