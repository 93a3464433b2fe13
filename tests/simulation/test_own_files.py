"""A user's own files: bad rows set aside and counted, good ones split, nothing of them in a message or a name."""

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import ContractViolation
from tasks.simulation.own_files import RECIPE_KEY, import_own_files
from tests.simulation.companies_on_disk import content, ids, real_molecules, tables

CANARY = "CANARYQQ"
SMILES = real_molecules(300)


def rows():
    structures = [(f"C{number}", smiles) for number, smiles in enumerate(SMILES)]
    activities = [
        (f"C{number}", f"A{assay}", "=", 4.0 + (7 * number + 3 * assay) % 50 / 10, "p")
        for number in range(len(SMILES))
        for assay in range(4)
    ]
    assays = [(f"A{assay}", "PANEL", "high") for assay in range(4)]
    return structures, activities, assays


def written(directory, structures, activities, assays, *, suffix="parquet"):
    directory.mkdir(parents=True, exist_ok=True)
    named = {
        "structures": (structures, ("compound_id", "smiles")),
        "activities": (activities, ("compound_id", "assay_id", "relation", "value", "unit")),
        "assays": (assays, ("assay_id", "assay_type", "direction")),
    }
    files = {}
    for name, (data, header) in named.items():
        files[name] = directory / f"{name}.{suffix}"
        table = pa.table(dict(zip(header, map(list, zip(*data, strict=True)), strict=True)))
        (pa_csv.write_csv if suffix == "csv" else pq.write_table)(table, files[name])
    return files


def imported(files, directory, **options):
    return import_own_files(**files, directory=directory, **({"partners": 2} | options))


def test_csv_and_parquet_of_the_same_rows_become_the_same_companies(tmp_path):
    found = [
        imported(written(tmp_path / suffix, *rows(), suffix=suffix), tmp_path / suffix / "data")
        for suffix in ("csv", "parquet")
    ]
    assert content(found[0]) == content(found[1])
    assert found[0].card.origin == "own files"
    assert not found[0].card.simulated_assays


def test_bad_rows_are_set_aside_by_number_and_rule_and_counted_without_their_values(tmp_path):
    structures, activities, assays = rows()
    structures += [(f"{CANARY}-1", ""), ("C5", "CCO")]
    activities += [
        ("C1", "A0", "~", 5.0, "p"),
        ("C1", CANARY, "=", 5.0, "p"),
        (CANARY, "A1", "=", 5.0, "p"),
        ("C1", "A2", "=", 5.0, CANARY),
    ]
    dataset = imported(written(tmp_path, structures, activities, assays), tmp_path / "data")
    left_out = dataset.card.left_out
    assert left_out["quarantined activities"] == 4
    assert left_out["quarantined structures"] >= 2
    assert left_out["quarantined assays"] == 0
    with pa.OSFile(str(dataset.path / "quarantine" / "activities.arrow")) as file:
        aside = pa.ipc.open_file(file).read_all()
    first = len(activities) - 4
    assert set(aside[aside.column_names[0]].to_pylist()) == set(range(first, first + 4))
    held = b"".join(path.read_bytes() for path in dataset.path.rglob("*") if path.is_file())
    assert CANARY.encode() not in held
    assert CANARY not in dataset.card.model_dump_json()


def test_without_assays_every_assay_gets_the_default_thresholds(tmp_path):
    files = written(tmp_path, *rows()) | {"assays": None}
    dataset = imported(files, tmp_path / "data")
    for partner in dataset.partners:
        for row in tables(dataset, partner)["assays"].to_pylist():
            assert (row["assay_type"], row["direction"]) == ("OTHER", "high")
            assert {value for name, value in row.items() if name.startswith("threshold")} == {None}


def test_the_same_files_are_found_again_and_other_content_is_another_dataset(tmp_path):
    files = written(tmp_path / "one", *rows())
    first = imported(files, tmp_path / "data")
    assert imported(files, tmp_path / "data").path == first.path
    structures, activities, assays = rows()
    other = written(tmp_path / "other", structures, activities[:-1], assays)
    assert imported(other, tmp_path / "data").path != first.path


def test_the_name_of_a_private_dataset_depends_on_a_secret_key(tmp_path):
    # A plain digest in a name would confirm a guess of the files' content.
    files = written(tmp_path, *rows())
    names = {imported(files, tmp_path / home).name for home in ("here", "there")}
    assert len(names) == 2
    assert (tmp_path / "here" / RECIPE_KEY).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["missing column", "missing file", "truncated"])
def test_a_file_that_breaks_its_contract_is_refused_and_leaves_no_dataset(tmp_path, damage):
    files = written(tmp_path, *rows())
    if damage == "missing column":
        table = pq.read_table(files["activities"]).drop_columns(["unit"])
        pq.write_table(table, files["activities"])
    elif damage == "missing file":
        files["activities"].unlink()
    else:
        files["activities"].write_bytes(files["activities"].read_bytes()[:-50])
    with pytest.raises(ContractViolation) as refused:
        imported(files, tmp_path / "data")
    assert "activities" in str(refused.value)
    assert not list((tmp_path / "data").glob("[!.]*"))


def test_companies_share_no_compound(tmp_path):
    dataset = imported(written(tmp_path, *rows()), tmp_path / "data", partners=3)
    held = [set(ids(tables(dataset, name)["structures"], "compound_id")) for name in dataset.partners]
    assert sum(map(len, held)) == len(set.union(*held))
