"""Hostile input: whatever the bytes, rows accepted and rows set aside are the rows read, and nothing hangs."""

import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.errors import ContractViolation
from data_contracts.quarantine import QUARANTINE
from data_contracts.writing import read_table
from tasks.featurization.preparation import PartnerFiles, prepare_dataset
from tasks.featurization.standardization import REASONS, PublishedStandardizer, Standardizer
from tests.featurization.partner import SECRET, simple, wehi_molecules

RULES = simple(training=1, evaluation=1)
DEADLINE_SECONDS = 20.0
SLOW = settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
FINE = list(enumerate(wehi_molecules(12)))
NAMES = st.one_of(
    st.sampled_from([f"C{number}" for number, _ in FINE]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["", "\x00", "C0\x00", "a" * 300, "C1\n", "é"]),
    st.none(),
)
STRUCTURES = st.one_of(
    st.sampled_from([smiles for _, smiles in FINE]),
    st.text("CNOc1()=#[]@+-.%/\\ ", max_size=40),
    st.sampled_from(["", "C\x00C", "C" * 6000, "C" * 99, "(" * 500, "[C@@H](" * 50, "é", "*", "[Na+].[Cl-]"]),
    st.none(),
)
VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([5.0, 6.5, 8.0]), st.none()
)
ACTIVITY = st.tuples(
    NAMES,
    st.one_of(st.sampled_from(["A", "B"]), NAMES),
    st.sampled_from(["=", "<", ">", "~", "", None]),
    VALUES,
    st.sampled_from(["p", "nM", "own", "%", None]),
)


def write(home, structures, activities):
    structures = [*((f"C{number}", smiles) for number, smiles in FINE), *structures]
    activities = [*((f"C{number}", "A", "=", 5.0 + number % 4, "p") for number, _ in FINE), *activities]
    tables = {
        "structures": pa.table(
            dict(zip(("compound_id", "smiles"), map(texts, zip(*structures, strict=True)), strict=True))
        ),
        "assays": pa.table({"assay_id": ["A", "B"], "assay_type": ["OTHER"] * 2, "direction": ["high"] * 2}),
    }
    columns = list(zip(*activities, strict=True))
    names = ("compound_id", "assay_id", "relation", "value", "unit")
    tables["activities"] = pa.table(
        {
            name: pa.array(column, pa.float64()) if name == "value" else texts(column)
            for name, column in zip(names, columns, strict=True)
        }
    )
    for name, table in tables.items():
        pq.write_table(table, home / f"{name}.parquet")
    return {name: table.num_rows for name, table in tables.items()}


def texts(column):
    return pa.array(column, pa.string())


@SLOW
@given(st.lists(st.tuples(NAMES, STRUCTURES), max_size=12), st.lists(ACTIVITY, max_size=12))
def test_every_row_read_is_accepted_or_set_aside(structures, activities):
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        counts = write(home, structures, activities)
        files = PartnerFiles(*(home / f"{name}.parquet" for name in ("assays", "activities", "structures")))
        try:
            prepared = prepare_dataset(
                files, consortium_secret=SECRET, output=home / "out", workers=1, rules=RULES
            )
        except ContractViolation:
            return  # more than half was bad: refused as a whole
        for file in prepared.report["files"]:
            name, rows = file["contract"].split("@")[0], file["rows"]
            assert rows["read"] == counts[name] == rows["accepted"] + rows["quarantined"]
            quarantine = read_table(prepared.directory / "quarantine" / f"{name}.arrow", QUARANTINE)
            assert len(set(quarantine.column("row").to_pylist())) == rows["quarantined"]


@pytest.mark.parametrize(
    "smiles",
    [
        "C" * 100_000,
        "(" * 100_000,
        "[" * 100_000,
        "C1" * 50_000,
        "." * 100_000,
        "C.C" * 30_000,
        "C(" * 4_999 + "C",
        "[C@@H]" * 10_000,
        "c1ccccc1" * 10_000,
        "%99" * 30_000,
        "C\x00C",
        "C C",
        "CC |$;R$|\x00",
        "\udcff",
        "\u00e9" * 1000,
        "C=" * 50_000,
    ],
    ids=range(16),
)
@pytest.mark.parametrize("standardizer", [Standardizer(), PublishedStandardizer()], ids=["fast", "published"])
def test_a_hostile_structure_is_refused_by_a_reason_within_its_deadline(standardizer, smiles):
    started = time.monotonic()
    parent = standardizer.parent(smiles)
    assert time.monotonic() - started < DEADLINE_SECONDS
    assert parent.reason in REASONS


@st.composite
def damage(draw):
    return draw(st.floats(0, 0.999)), draw(st.binary(min_size=1, max_size=16)), draw(st.booleans())


@SLOW
@given(damage(), st.sampled_from(["structures", "activities", "assays"]))
def test_a_damaged_file_is_refused_or_read_and_never_a_crash(hit, name):
    where, data, cut = hit
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        write(home, [], [])
        path = home / f"{name}.parquet"
        content = bytearray(path.read_bytes())
        at = int(where * len(content))
        content[at : at + len(data)] = data[: len(content) - at]
        path.write_bytes(content[:at] if cut else content)
        files = PartnerFiles(*(home / f"{table}.parquet" for table in ("assays", "activities", "structures")))
        try:
            prepared = prepare_dataset(
                files, consortium_secret=SECRET, output=home / "out", workers=1, rules=RULES
            )
        except ContractViolation:
            return
        for file in prepared.report["files"]:
            assert file["rows"]["read"] == file["rows"]["accepted"] + file["rows"]["quarantined"]
