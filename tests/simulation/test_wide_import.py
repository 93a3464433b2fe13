"""A public wide table becomes companies: values kept, units right, everything left out counted, the rest refused."""

import csv
import gzip
import io
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import ContractViolation, MotetError, SettingsError
from tasks.simulation import wide_tables
from tasks.simulation.structure_groups import group_structures
from tasks.simulation.wide_import import import_wide_table, source_tables
from tasks.simulation.wide_tables import read_wide_table
from tests.architecture.tree import ROOT
from tests.simulation.companies_on_disk import content, ids, real_molecules, tables

CANARY = "CANARYQQ"
CHEMBL = ROOT.parent / "shared" / "data" / "chembl_5thresh.csv.gz"
SMILES = real_molecules(450)
NAMES = ("T1", "T2", "T3", "BIN")


def columns():
    rng = np.random.default_rng(0)
    found = {"smiles": SMILES}
    for name in NAMES[:-1]:
        values = np.round(rng.uniform(4, 9, len(SMILES)), 2)
        found[name] = [
            None if gap else float(v) for v, gap in zip(values, rng.random(len(SMILES)) < 0.3, strict=True)
        ]
    found["BIN"] = [float(v) for v in rng.integers(0, 2, len(SMILES))]
    return found


def csv_text(table):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table)
    writer.writerows(
        zip(*(["" if v is None else v for v in column] for column in table.values()), strict=True)
    )
    return text.getvalue().encode()


def written(directory, name="wide.csv", table=None):
    table = table or columns()
    directory.mkdir(exist_ok=True, parents=True)
    path = directory / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table(table), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(csv_text(table), mtime=0))
    else:
        path.write_bytes(csv_text(table))
    return path


def imported(path, directory, **options):
    return import_wide_table(path, directory=directory, **({"partners": 2} | options))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    home = tmp_path_factory.mktemp("wide")
    return imported(written(home), home / "data")


def test_csv_gzip_and_parquet_of_one_table_become_the_same_companies(dataset, tmp_path):
    for name in ("wide.csv.gz", "wide.parquet"):
        assert content(imported(written(tmp_path, name), tmp_path / "data")) == content(dataset)


def test_every_value_of_the_table_arrives_once_or_is_counted(dataset):
    table = columns()
    known = {
        (smiles, name): table[name][row]
        for name in NAMES
        for row, smiles in enumerate(SMILES)
        if table[name][row] is not None
    }
    arrived = 0
    for partner in dataset.partners:
        found = tables(dataset, partner)
        smiles_of = dict(
            zip(ids(found["structures"], "compound_id"), ids(found["structures"], "smiles"), strict=True)
        )
        for row in found["activities"].to_pylist():
            assert known[smiles_of[row["compound_id"]], row["assay_id"]] == row["value"]
            arrived += 1
    assert arrived + sum(dataset.card.left_out.values()) == len(known)


def test_an_imported_dataset_is_measured_but_its_companies_are_simulated(dataset):
    assert not dataset.card.simulated_assays
    assert dataset.card.simulated_companies
    assert dataset.card.origin == "wide"


def test_companies_of_an_import_share_no_skeleton_and_no_compound(dataset):
    smiles = [ids(tables(dataset, name)["structures"], "smiles") for name in dataset.partners]
    skeleton = group_structures([text for texts in smiles for text in texts]).skeleton.tolist()
    edges = np.cumsum([0, *map(len, smiles)])
    held = [set(skeleton[a:b]) for a, b in itertools.pairwise(edges)]
    assert sum(map(len, held)) == len(set.union(*held))


def test_a_table_imported_again_is_found_and_other_settings_are_another_dataset(dataset, tmp_path):
    path = written(tmp_path)
    first = imported(path, tmp_path / "data")
    assert first.name == dataset.name  # the same content and settings, wherever the file lies
    assert imported(path, tmp_path / "data").path == first.path
    assert imported(path, tmp_path / "data", seed=1).name != first.name
    imported(path, tmp_path / "data", name="Mine")
    with pytest.raises(SettingsError, match="'mine' exists already"):
        imported(path, tmp_path / "data", name="mine", seed=1)


def long_form(path, **options):
    wide = read_wide_table(path)
    source, left_out = source_tables(wide, who=path.name, **({"unit": "p", "fewest_values": 1} | options))
    rows = {
        (row["compound_id"], row["assay_id"]): (row["value"], row["unit"])
        for row in source.activities.to_pylist()
    }
    return rows, source, left_out


def test_companies_of_disjoint_assays_are_another_dataset_of_all_values(dataset, tmp_path):
    apart = imported(written(tmp_path), tmp_path / "data", scenario="disjoint-assays")
    assert apart.name != dataset.name
    assert apart.card.left_out["values at companies that do not run the assay"] == 0
    held = [set(ids(tables(apart, name)["assays"], "assay_id")) for name in apart.partners]
    assert set.intersection(*held) == set()
    assert apart.catalogue == ()


def test_rows_of_one_structure_are_merged_however_it_is_written(tmp_path):
    table = {
        "smiles": ["OCC", "C(O)C", "CCO", "CCN", "CCN"],
        "T": [6.0, 7.0, 8.0, 5.0, None],
        "B": [1.0, 0.0, None, 0.0, 0.0],
    }
    rows, source, left_out = long_form(written(tmp_path, table=table))
    assert source.structures.num_rows == 2
    assert rows["ROW-0000001", "T"] == (7.0, "p")
    assert rows["ROW-0000001", "B"] == (0.5, "p")  # a tie reaches the threshold: active
    assert rows["ROW-0000004", "B"] == (0.0, "p")
    assert left_out["values merged into another of the same structure"] == 2 + 1 + 1


@pytest.mark.parametrize(("unit", "factor"), [("nM", 1.0), ("uM", 1e-3), ("M", 1e-9)])
def test_concentrations_are_averaged_as_logarithms_and_keep_their_unit(tmp_path, unit, factor):
    table = {
        "smiles": ["CCO", "OCC", "CCN", "CCC"],
        "T": [100 * factor, 10_000 * factor, 0.0, -5.0],
        "B": [1, 0, 1, 1],
    }
    rows, source, left_out = long_form(written(tmp_path, table=table), unit=unit)
    value, found = rows["ROW-0000001", "T"]
    assert (value, found) == (pytest.approx(1000 * factor), unit)  # the geometric mean
    assert left_out["values that are no concentration"] == 2
    assert rows["ROW-0000003", "B"] == (1.0, "p")
    thresholds = dict(zip(ids(source.assays, "assay_id"), ids(source.assays, "threshold_1"), strict=True))
    assert thresholds == {"T": None, "B": 0.5}


def test_nanomolar_numbers_taken_for_p_are_refused_with_what_to_do(tmp_path):
    path = written(tmp_path, table={"smiles": ["CCO", "CCN", "CCC"], "T": [120.0, 5300.0, 7.0]})
    with pytest.raises(SettingsError, match="2 of 3 values are no") as refused:
        long_form(path)
    assert "nM" in refused.value.advice


def test_small_targets_are_left_out_and_counted(tmp_path):
    table = {"smiles": ["CCO", "CCN", "CCC"], "T": [5.0, 6.0, 7.0], "S": [5.0, None, None]}
    rows, _, left_out = long_form(written(tmp_path, table=table), fewest_values=2)
    assert {assay for _, assay in rows} == {"T"}
    assert left_out["targets with fewer than 2 values"] == left_out["values of these targets"] == 1
    with pytest.raises(SettingsError, match="none of 2 targets has 4 values"):
        long_form(written(tmp_path, table=table), fewest_values=4)


def test_what_is_no_number_no_structure_or_no_target_is_counted(tmp_path):
    table = {
        "Smiles": ["CCO", "", "CCN", "C" * 6000, "C\tC", "CCC"],
        "mol_id": [1, 2, 3, 4, 5, 6],
        "T": ["6.1", "5", "1e400", "5", "5", ">7"],
        "note": ["low", "", "high", "", "", "odd"],
    }
    wide = read_wide_table(written(tmp_path, table=table))
    assert (wide.targets, wide.smiles, wide.value.tolist()) == (("T",), ("CCO", "CCN", "CCC"), [6.1])
    assert wide.left_out == {
        "rows without a usable structure": 3,
        "values that are not numbers": 2,
        "columns that are not numeric": 1,
    }


def test_ids_of_the_table_are_kept_and_repeated_ones_refused(tmp_path):
    table = columns() | {"code": [f"X{number}" for number in range(len(SMILES))]}
    found = imported(written(tmp_path, table=table), tmp_path / "data", id_column="code", ignored=("BIN",))
    names = [
        name
        for partner in found.partners
        for name in ids(tables(found, partner)["structures"], "compound_id")
    ]
    assert set(names) <= set(table["code"])
    table["code"][7] = table["code"][300]
    with pytest.raises(SettingsError, match="1 compound ids name a further structure") as refused:
        imported(written(tmp_path, table=table), tmp_path / "data", id_column="code")
    assert "X300" not in str(refused.value)


def test_ids_that_break_their_contract_are_refused_without_showing_them(tmp_path):
    table = columns() | {"code": [f"{CANARY}\n{number}" for number in range(len(SMILES))]}
    with pytest.raises(ContractViolation) as refused:
        imported(written(tmp_path, "wide.parquet", table=table), tmp_path / "data", id_column="code")
    assert CANARY not in str(refused.value)


GOOD = csv_text(columns())
REFUSED = {
    "missing": (None, "there is no file"),
    "empty": (b"", "empty"),
    "header-only": (b"smiles,T\n", "no rows"),
    "no-smiles": (b"text,T\nCCO,5\n", "is called `smiles`"),
    "no-target": (f"smiles,note\nCCO,{CANARY}\n".encode(), "no numeric target"),
    "ragged": (f"smiles,T\nCCO,5,{CANARY}\n".encode(), "cannot be read"),
    "repeated-column": (b"smiles,T,T\nCCO,5,6\n", "repeats"),
    "not-text": (b"smiles,T\n\xff\xfe\xfa,5\n", "cannot be read"),
    "truncated-gzip": (gzip.compress(GOOD)[:-40], "cannot be read"),
    "damaged-gzip": (gzip.compress(GOOD)[:60] + b"\0" * 40, "cannot be read"),
    "truncated-parquet": (b"PAR1" + b"\0" * 100, "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_wide_table_is_refused_by_name_and_without_a_value(tmp_path, case):
    content_bytes, message = REFUSED[case]
    path = tmp_path / "table.csv"
    if content_bytes is not None:
        path.write_bytes(content_bytes)
    with pytest.raises(SettingsError, match=message) as refused:
        imported(path, tmp_path / "data")
    assert "table.csv" in str(refused.value)
    assert CANARY not in str(refused.value) + refused.value.advice
    assert refused.value.__cause__ is None
    assert not list((tmp_path / "data").glob("[!.]*"))


def test_a_truncated_parquet_of_a_real_table_is_refused(tmp_path):
    path = written(tmp_path, "wide.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SettingsError, match="cannot be read"):
        imported(path, tmp_path / "data")


def test_a_table_that_grows_when_decoded_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(wide_tables, "FREE_DECODED_BYTES", 2**20)
    bomb = b"smiles,T\n" + b"C" * 2000 + b",5.0\n"
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(bomb[:9] + bomb[9:] * 20_000))
    assert path.stat().st_size < 2**18
    with pytest.raises(SettingsError, match="decompression bomb"):
        imported(path, tmp_path / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "mg"}, "no unit 'mg'"),
        ({"partners": 27}, "among 27 companies"),
        ({"partners": 20}, "needs at least 100"),
        ({"name": "--"}, "needs a letter or a digit"),
        ({"smiles_column": "structure"}, "no column 'structure'"),
        ({"id_column": "code"}, "no column 'code'"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, options, message):
    with pytest.raises(MotetError, match=message):
        imported(written(tmp_path), tmp_path / "data", **options)


@pytest.mark.shared_data
@pytest.mark.skipif(not CHEMBL.exists(), reason="the real data is not beside the checkout")
def test_the_public_table_of_691_targets_becomes_four_companies(tmp_path):
    with gzip.open(CHEMBL, "rt", encoding="utf-8") as file:
        header, *rows = file.readlines()
    path = tmp_path / "chembl_part.csv.gz"
    path.write_bytes(gzip.compress("".join([header, *rows[::6]]).encode()))
    found = imported(path, tmp_path / "data", partners=4, fewest_values=20)
    values = sum(counts.activities for counts in found.card.counts.values())
    written_values = sum(sum(bool(cell.strip()) for cell in row.split(",")[1:]) for row in rows[::6])
    lost = {
        reason: count
        for reason, count in found.card.left_out.items()
        if not reason.startswith("targets with")
    }
    assert values + sum(lost.values()) == written_values
    skeletons = [set(ids(tables(found, name)["structures"], "compound_id")) for name in found.partners]
    assert sum(map(len, skeletons)) == len(set.union(*skeletons))
    shared = [set(ids(tables(found, name)["assays"], "assay_id")) for name in found.partners]
    assert len(set.intersection(*shared)) >= 20
