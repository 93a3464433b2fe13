"""Files that a partner already has: MELLODDY's by their headers, and long extracts in whatever units."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.catalogue import ACTIVITIES, ASSAYS, CATALOGUE, STRUCTURES
from data_contracts.errors import ContractViolation
from data_contracts.quarantine import QUARANTINE
from data_contracts.validation import require_valid
from data_contracts.writing import read_table
from tasks.featurization.long_import import (
    CONCENTRATIONS,
    IMPOSSIBLE,
    P_VALUES,
    PERCENT_IS_NO_CONCENTRATION,
    UNIT_OF_P_VALUE,
    UNKNOWN_UNIT,
    import_long,
    unit_of,
)
from tasks.featurization.melloddy_import import MISPLACED, NO_ASSAY, import_melloddy

T0_HEADER = [
    "input_assay_id",
    "assay_type",
    "use_in_regression",
    "is_binary",
    "expert_threshold_1",
    "expert_threshold_2",
    "expert_threshold_3",
    "expert_threshold_4",
    "expert_threshold_5",
    "direction",
    "catalog_assay_id",
    "parent_assay_id",
    "META_target",
]
T0_ROWS = [
    ("7", "OTHER", "True", "False", "5.0", "6.5", "", "", "", "", "", "", "kinase"),
    ("8", "NON-CATALOG-PANEL", "False", "False", "", "", "", "", "", "low", "", "", "kinase"),
    ("9", "CATALOG-PANEL", "True", "False", "", "", "", "", "", "high", "12.0", "", "herg"),
    ("10", "AUX_HTS", "False", "False", "", "", "", "", "", "", "", "", ""),
    ("11", "ADME", "True", "False", "", "", "", "", "", "", "", "", ""),
    ("12", "ADME", "True", "False", "", "", "", "", "", "", "13.0", "", ""),  # a catalogue id, but no panel
    ("13", "PANEL", "True", "False", "", "", "", "", "", "", "", "", ""),  # year-1 spelling
]
T1_HEADER = ("input_compound_id", "input_assay_id", "standard_qualifier", "standard_value")
T1_ROWS = [
    ("1", "7", "", "6.1"),
    ("1", "8", "<=", "5.0"),
    ("2", "9", "~", "7.0"),
    ("2", "10", ">>", "3.5"),
    ("2", "11", "=", "88.2"),
    ("2", "12", "=", "1.0"),  # its assay was set aside
    ("2", "7", "?", "6.0"),
    ("2", "7", "=", "high"),
    ("2", "7", "=", ""),
]
T2_ROWS = [("1", "CCO"), ("2", "CCN"), ("2", "CCN")]
T_CAT_HEADER = ("catalog_assay_id", "catalog_task_id", "threshold", "threshold_method", *T0_HEADER[4:9])
T_CAT_ROWS = [
    ("12", "1", "5.0", "expert", "5.0", "4.53", "6.0", "", ""),
    ("12", "2", "4.53", "aux_low", "", "", "", "", ""),
    ("14", "3", "6.0", "expert", "", "", "", "", ""),
]


def write(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def files(tmp_path):
    return {
        "t0": write(tmp_path / "T0.csv", T0_HEADER, T0_ROWS),
        "t1": write(tmp_path / "T1.csv", T1_HEADER, T1_ROWS),
        "t2": write(tmp_path / "T2.csv", ("input_compound_id", "smiles"), T2_ROWS),
        "t_cat": write(tmp_path / "T_cat.csv", T_CAT_HEADER, T_CAT_ROWS),
    }


def rows_of(imported, contract):
    table = pq.read_table(imported.path)
    list(require_valid(table.to_batches(), contract, source="imported"))
    return table.to_pylist()


def test_melloddy_files_become_our_tables(files, tmp_path):
    tables = import_melloddy(**files, directory=tmp_path / "out")
    assays = {row["assay_id"]: row for row in rows_of(tables["assays"], ASSAYS)}
    kinds = {name: (row["assay_type"], row["direction"]) for name, row in assays.items()}
    assert kinds == {
        "7": ("OTHER", "high"),
        "8": ("PANEL", "low"),
        "9": ("CATALOG_PANEL", "high"),
        "10": ("AUX_HTS", "both"),
        "11": ("ADME", "high"),
    }
    assert (assays["7"]["threshold_1"], assays["7"]["threshold_2"], assays["7"]["threshold_3"]) == (
        5.0,
        6.5,
        None,
    )
    assert assays["9"]["catalogue_assay_id"] == "12"
    assert not assays["8"]["use_in_regression"]
    activities = [tuple(row.values())[:5] for row in rows_of(tables["activities"], ACTIVITIES)]
    assert activities == [
        ("1", "7", "=", 6.1, "p"),
        ("1", "8", "<", 5.0, "p"),
        ("2", "9", "=", 7.0, "p"),
        ("2", "10", ">", 3.5, "own"),
        ("2", "11", "=", 88.2, "own"),
    ]
    assert [row["smiles"] for row in rows_of(tables["structures"], STRUCTURES)] == ["CCO", "CCN"]


def test_the_catalogue_takes_the_thresholds_of_its_first_row_and_the_endpoints_of_each(files, tmp_path):
    tables = import_melloddy(**files, directory=tmp_path / "out")
    rows = [tuple(row.values()) for row in rows_of(tables["catalogue"], CATALOGUE)]
    assert sorted(rows, key=str) == sorted(
        [
            ("12", "1", 5.0, "expert"),
            ("12", "2", 4.53, "aux_low"),
            ("12", None, 6.0, "expert"),
            ("14", None, 5.0, "expert"),
            ("14", None, 4.53, "aux_low"),
            ("14", "3", 6.0, "expert"),
        ],
        key=str,
    )


def test_every_row_of_an_import_is_accepted_or_has_a_reason(files, tmp_path):
    tables = import_melloddy(**files, directory=tmp_path / "out")
    expected = {
        "assays": (T0_ROWS, {("12", MISPLACED), ("13", "one_of")}),
        "activities": (
            T1_ROWS,
            {(("2", "12", "=", "1.0")[1], NO_ASSAY), ("7", "one_of"), ("7", "type"), ("7", "required")},
        ),
        "structures": (T2_ROWS, {("2", "unique")}),
    }
    for name, (rows, fallen) in expected.items():
        report = tables[name].report
        assert report.rows_read == len(rows) == report.rows_accepted + report.rows_quarantined
        quarantine = read_table(tmp_path / "out/quarantine" / f"{name}.arrow", QUARANTINE).to_pylist()
        place = 1 if name == "activities" else 0
        assert {(rows[row["row"]][place], row["rule"]) for row in quarantine} == fallen


def test_parquet_with_numbers_for_names_gives_the_same_tables(files, tmp_path):
    import_melloddy(**files, directory=tmp_path / "csv")
    table = pa.table(
        {
            "input_compound_id": pa.array([int(row[0]) for row in T1_ROWS[:5]], pa.int64()),
            "input_assay_id": pa.array([int(row[1]) for row in T1_ROWS[:5]], pa.int32()),
            "standard_qualifier": [row[2] or None for row in T1_ROWS[:5]],
            "standard_value": [float(row[3]) for row in T1_ROWS[:5]],
        }
    )
    pq.write_table(table, tmp_path / "T1.parquet")
    import_melloddy(**files | {"t1": tmp_path / "T1.parquet"}, directory=tmp_path / "parquet")
    one, other = (pq.read_table(tmp_path / name / "activities.parquet") for name in ("csv", "parquet"))
    assert one.equals(other)


def test_a_file_with_other_headers_is_refused_and_leaves_no_table(files, tmp_path):
    write(files["t1"], ("compound", "assay", "q", "v"), T1_ROWS)
    with pytest.raises(ContractViolation, match="without input_compound_id, input_assay_id, standard_value"):
        import_melloddy(**files, directory=tmp_path / "out")
    assert not (tmp_path / "out/activities.parquet").exists()


def test_a_catalogue_without_thresholds_is_refused(files, tmp_path):
    write(files["t_cat"], T_CAT_HEADER, T_CAT_ROWS[1:])
    with pytest.raises(ContractViolation, match="first row without thresholds"):
        import_melloddy(**files, directory=tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "unit", "expected"),
    [
        ("IC50", "nM", ("nM", None)),
        ("ic50", "µM", ("uM", None)),
        ("Ki", "mM", ("mM", None)),
        ("Ki", "MM", (None, UNKNOWN_UNIT)),
        ("Ki", "mm", (None, UNKNOWN_UNIT)),
        ("EC50", "%", (None, PERCENT_IS_NO_CONCENTRATION)),
        ("EC50", "ug/ml", (None, UNKNOWN_UNIT)),
        ("EC50", None, (None, UNKNOWN_UNIT)),
        ("pIC50", None, ("p", None)),
        ("pChEMBL", "nM", (None, UNIT_OF_P_VALUE)),
        ("Inhibition", "%", ("own", None)),
        ("Z-score", "", ("own", None)),
    ],
)
def test_units_by_quantity(kind, unit, expected):
    assert unit_of(kind, unit) == expected


@given(st.sampled_from(sorted(CONCENTRATIONS | P_VALUES)), st.sampled_from(["%", " % ", "percent", "PCT"]))
def test_a_percentage_never_becomes_a_concentration(kind, unit):
    unit_found, reason = unit_of(kind, unit)
    assert unit_found is None
    assert reason in {PERCENT_IS_NO_CONCENTRATION, UNIT_OF_P_VALUE}


LONG_HEADER = ("compound_id", "assay_id", "value", "unit", "relation", "measurement_type", "site")


def long_file(tmp_path, rows):
    write(tmp_path / "s.csv", ("compound_id", "smiles"), [("C1", "CCO"), ("C2", "CCN")])
    return write(tmp_path / "long.csv", LONG_HEADER, [(*row, "Basel") for row in rows])


def test_a_long_extract_keeps_quantities_apart_and_explains_what_it_leaves_out(tmp_path):
    rows = [
        ("C1", "A", "10", "uM", ">", "IC50"),
        ("C1", "A", "35", "%", "", "Inhibition"),
        ("C2", "A", "35", "%", "", "IC50"),
        ("C2", "A", "0", "nM", "=", "IC50"),
        ("C2", "A", "7.2", "", "", "pIC50"),
        ("C2", "A", "5", "ug/ml", "=", "IC50"),
    ]
    found = import_long(long_file(tmp_path, rows), structures=tmp_path / "s.csv", directory=tmp_path / "out")
    activities = [tuple(row.values())[:5] for row in rows_of(found.tables["activities"], ACTIVITIES)]
    assert activities == [
        ("C1", "A/IC50", ">", 10.0, "uM"),
        ("C1", "A/Inhibition", "=", 35.0, "own"),
        ("C2", "A/pIC50", "=", 7.2, "p"),
    ]
    kinds = {row["assay_id"]: row["assay_type"] for row in rows_of(found.tables["assays"], ASSAYS)}
    assert kinds == {"A/IC50": "OTHER", "A/Inhibition": "AUX_HTS", "A/pIC50": "OTHER"}
    report = found.tables["activities"].report
    assert report.rows_read == 6 == report.rows_accepted + report.rows_quarantined
    assert {f.rule: f.count for f in report.findings if f.count} == {
        PERCENT_IS_NO_CONCENTRATION: 1,
        IMPOSSIBLE: 1,
        UNKNOWN_UNIT: 1,
    }


def test_a_unit_mistaken_by_a_thousand_shows_and_a_mere_spread_does_not(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        nanomolar = 10 ** rng.normal(2.0, 0.3)
        rows.append(("C1", "mistaken", f"{nanomolar:.4g}", "nM" if number % 2 else "uM", "=", "IC50"))
        value = nanomolar if number % 2 else nanomolar / 1000
        rows.append(("C1", "sound", f"{value:.4g}", "nM" if number % 2 else "uM", "=", "IC50"))
    found = import_long(long_file(tmp_path, rows), structures=tmp_path / "s.csv", directory=tmp_path / "out")
    assert [warning["assay"] for warning in found.suspicious] == ["mistaken/IC50"]
    assert found.suspicious[0]["units"] == ["uM", "nM"]
