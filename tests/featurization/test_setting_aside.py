"""Accounting: every row read is in use or in the quarantine, at its place in the source."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalogue import STRUCTURES
from data_contracts.errors import ContractViolation
from data_contracts.quarantine import QUARANTINE
from data_contracts.validation import validate_batches
from data_contracts.writing import read_table
from tasks.featurization.setting_aside import Accepted, accept, require_mostly_usable, set_aside

REASONS = ("parse", "no_carbon")
FATES = st.lists(st.sampled_from(["fine", "fine", "fine", "contract", *REASONS]), min_size=1, max_size=40)


def accepted(fates, directory):
    """Validate a table whose rows have the given fates, by the contract alone."""
    rows = pa.table(
        {
            "compound_id": [f"C{number}" for number in range(len(fates))],
            "smiles": ["" if fate == "contract" else fate for fate in fates],
        }
    )
    validation = validate_batches(
        rows.to_batches(max_chunksize=7),
        STRUCTURES,
        quarantine_path=directory / "q.arrow",
        max_bad_fraction=1.0,
    )
    table = pa.Table.from_batches(list(validation), schema=STRUCTURES.schema)
    return Accepted(table, validation.report, directory / "q.arrow")


def reasons_of(rows):
    return pa.array(
        [fate if fate in REASONS else None for fate in rows.column("smiles").to_pylist()], pa.string()
    )


def in_use(before):
    """Rows that nothing sets aside."""
    return before.table.filter(pc.is_null(reasons_of(before.table)))


@settings(max_examples=40)
@given(FATES)
def test_every_row_read_is_in_use_or_in_the_quarantine(fates):
    with tempfile.TemporaryDirectory() as home:
        before = accepted(fates, Path(home))
        report = set_aside(before, reasons_of(before.table), column="smiles", known_reasons=REASONS)
        quarantine = read_table(before.quarantine, QUARANTINE).to_pydict()
    left = in_use(before)
    assert report.rows_read == len(fates) == report.rows_accepted + report.rows_quarantined
    assert left.num_rows == report.rows_accepted == fates.count("fine")
    numbers = [int(name[1:]) for name in left.column("compound_id").to_pylist()]
    assert sorted([*numbers, *set(quarantine["row"])]) == list(range(len(fates)))
    assert quarantine["row"] == sorted(quarantine["row"])
    for row, rule in zip(quarantine["row"], quarantine["rule"], strict=True):
        assert rule == fates[row] or (fates[row] == "contract" and rule == "length_between")
    counts = {finding.rule: finding.count for finding in report.findings if finding.column == "smiles"}
    assert [counts[reason] for reason in REASONS] == [fates.count(reason) for reason in REASONS]


def test_a_second_pass_finds_the_rows_left_by_the_first(tmp_path):
    fates = ["parse", "fine", "no_carbon", "contract", "fine"]
    one = accepted(fates, tmp_path)
    report = set_aside(one, reasons_of(one.table), column="smiles", known_reasons=REASONS)
    two = Accepted(in_use(one), report, one.quarantine)
    three = set_aside(two, pa.array([None, "late"]), column="smiles", known_reasons=["late"])
    assert three.findings[-1].rows == (4,)
    assert read_table(one.quarantine, QUARANTINE).column("row").to_pylist() == [0, 2, 3, 4]


@pytest.mark.parametrize(("n_bad", "refused"), [(5, False), (6, True)])
def test_a_table_of_which_more_than_half_is_unusable_is_refused(tmp_path, n_bad, refused):
    before = accepted(["parse"] * n_bad + ["fine"] * (10 - n_bad), tmp_path)
    after = set_aside(before, reasons_of(before.table), column="smiles", known_reasons=REASONS)
    if not refused:
        require_mostly_usable(after)
        return
    with pytest.raises(ContractViolation, match=r"got 6 of 10 rows .*parse of smiles: 6 rows.*at most 50%"):
        require_mostly_usable(after)


def test_a_file_is_read_and_validated_in_one_call(tmp_path):
    pq.write_table(
        pa.table({"compound_id": ["a", "a", "b"], "smiles": ["C", "C", "CC"]}), tmp_path / "s.parquet"
    )
    found = accept(tmp_path / "s.parquet", STRUCTURES, quarantine=tmp_path / "quarantine")
    assert found.table.num_rows == found.report.rows_accepted
    assert found.report.rows_quarantined == 3 - found.table.num_rows >= 1
    assert np.isin(read_table(found.quarantine, QUARANTINE).column("row"), [0, 1]).all()
