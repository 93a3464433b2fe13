"""Preparation end to end: three files in, contracted tables and a report out, whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from data_contracts.catalogue import ENDPOINTS, HASHED_FINGERPRINTS, LABELS
from data_contracts.errors import ContractViolation, SettingsError
from data_contracts.quarantine import QUARANTINE
from data_contracts.writing import read_table
from tasks.featurization import preparation
from tasks.featurization.fingerprints import hashed_bits
from tasks.featurization.folds import fold_of_scaffold, generic_scaffold, structure_key
from tasks.featurization.preparation import PreparedDataset, prepare_dataset
from tasks.featurization.preparation_rules import rules_of
from tasks.featurization.prepared import find_prepared, identity_of, publish
from tasks.featurization.standardization import Standardizer
from tests.featurization.partner import SECRET, SMALL_QUORUMS, Partner, random_partner, simple

CONTRACTS = {"fingerprints": HASHED_FINGERPRINTS, "endpoints": ENDPOINTS, "labels": LABELS}


def prepare(files, output, **options) -> PreparedDataset:
    options = {"consortium_secret": SECRET, "workers": 1, "rules": SMALL_QUORUMS} | options
    return prepare_dataset(files, output=output, **options)


def tables_of(prepared):
    return {name: read_table(prepared.path(name), contract) for name, contract in CONTRACTS.items()}


def content(directory):
    """All files of a directory."""
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def beside(output):
    """What lies beside an output, without the partner's files."""
    return sorted(path.name for path in output.parent.iterdir() if path.suffix not in {".parquet", ".csv"})


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """A partner of which we know what is wrong with each row, prepared."""
    home = tmp_path_factory.mktemp("spoiled")
    partner = random_partner(seed=1)
    partner.structures += [
        ("bad-parse", "C1CC"),
        ("bad-salt", "[Na+].[Cl-]"),
        ("bad-dummy", "*CC"),
        ("empty", ""),
    ]
    partner.structures.append(("lonely", "CCCCCCCCN"))  # no activity
    partner.activities += [
        ("bad-parse", "potency", "=", 5.0, "p"),
        ("bad-salt", "potency", "=", 5.0, "p"),
        ("bad-salt", "clearance", "=", 5.0, "p"),
        ("empty", "potency", "=", 5.0, "p"),  # its structure fell at the contract
        ("stranger", "potency", "=", 5.0, "p"),
        ("C0", "potency", "=", -3.0, "nM"),
        ("C0", "potency", "=", 3.0, "mg/l"),
        ("C0", "unknown", "=", 3.0, "p"),
    ]
    calls = []
    prepared = prepare(
        partner.write(home), home / "prepared", progress=lambda done, total: calls.append((done, total))
    )
    return partner, prepared, calls


def test_every_row_read_is_accepted_or_in_the_quarantine(spoiled):
    partner, prepared, _ = spoiled
    files = {file["contract"].split("@")[0]: file for file in prepared.report["files"]}
    for name, rows in (("structures", partner.structures), ("activities", partner.activities)):
        counts = files[name]["rows"]
        assert counts["read"] == len(rows) == counts["accepted"] + counts["quarantined"]
        quarantine = read_table(prepared.directory / "quarantine" / f"{name}.arrow", QUARANTINE)
        assert len(np.unique(quarantine.column("row"))) == counts["quarantined"]
    found = {(rule["rule"], rule["column"]): rule["count"] for rule in files["activities"]["rules"]}
    assert found == {
        ("one_of", "unit"): 1,
        ("between_when", "value"): 1,
        ("known_in", "compound_id"): 2,
        ("known_in", "assay_id"): 1,
        ("unknown structure", "compound_id"): 3,
    }


def test_a_row_without_a_parent_is_in_the_quarantine_with_its_place_and_reason(spoiled):
    partner, prepared, _ = spoiled
    quarantine = read_table(prepared.directory / "quarantine" / "structures.arrow", QUARANTINE).to_pylist()
    found = {partner.structures[row["row"]][0]: row["rule"] for row in quarantine}
    assert found == {
        "bad-parse": "parse",
        "bad-salt": "no_carbon",
        "bad-dummy": "dummy_atom",
        "empty": "length_between",
    }


def test_tables_hold_what_each_module_says_of_each_structure(spoiled):
    partner, prepared, _ = spoiled
    fingerprints = tables_of(prepared)["fingerprints"].to_pylist()
    expected = {}
    for _, smiles in partner.structures[:80]:
        parent = Standardizer().parent(smiles)
        key = structure_key(parent.smiles, secret=SECRET)
        fold = fold_of_scaffold(generic_scaffold(parent.mol), secret=SECRET)
        expected[key] = (fold, hashed_bits(parent.mol).tolist())
    assert {row["structure_key"]: (row["fold"], row["bits"]) for row in fingerprints} == expected
    assert [row["structure_key"] for row in fingerprints] == sorted(expected)


def test_labels_follow_from_the_values(spoiled):
    partner, prepared, _ = spoiled
    tables = tables_of(prepared)
    smiles = dict(partner.structures)
    parent = {name: Standardizer().parent(smiles[name]).smiles for name in list(smiles)[:80]}
    key = {name: structure_key(text, secret=SECRET) for name, text in parent.items()}
    keys = tables["fingerprints"].column("structure_key").to_pylist()
    names = tables["endpoints"].column("endpoint_id").to_pylist()
    labels = {
        (keys[row["structure_index"]], names[row["endpoint_index"]]): row["label"]
        for row in tables["labels"].to_pylist()
    }
    expected = {}
    for name, assay, _, value, unit in partner.activities[:160]:
        p = 9 - np.log10(value) if unit == "nM" else value
        for threshold in (5.5, 6.5, 7.5):
            active = p >= threshold if assay == "potency" else p <= threshold
            expected[key[name], f"{assay}{'>=' if assay == 'potency' else '<='}{threshold}"] = int(active)
    assert labels == {pair: label for pair, label in expected.items() if pair[1] in names}
    assert len(names) >= 4


def test_the_report_counts_and_says_nothing_else(spoiled):
    _, prepared, _ = spoiled
    report = json.loads((prepared.directory / "data_report.json").read_bytes())
    assert report == prepared.report
    assert report["structures"] == {"distinct_parents": 81, "without_activity": 1, "prepared": 80}
    assert report["pairs"] == {"measured": 160, "contradictory": 0, "of constant assays": 0}
    tables = tables_of(prepared)
    assert sum(report["labels"].values()) == tables["labels"].num_rows
    assert report["endpoints"]["prepared"] == tables["endpoints"].num_rows
    assert sum(report["endpoints"]["excluded"].values()) == 6 - tables["endpoints"].num_rows
    ours = {"structures@1.0.0", "assays@1.1.0", "activities@1.1.0"}
    assert {file["contract"] for file in report["files"]} == ours
    text = json.dumps(report)
    assert not any(word in text for word in ("bad-", "stranger", "potency", "mg/l", "C0", SECRET.hex()))


def test_the_page_shows_the_counts_without_scripts_or_links(spoiled):
    _, prepared, _ = spoiled

    class Reader(HTMLParser):
        tags, words = [], []

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}

        def handle_data(self, data):
            self.words.append(data.strip())

    reader = Reader()
    reader.feed((prepared.directory / "data_report.html").read_text(encoding="utf-8"))
    assert "script" not in reader.tags
    assert reader.tags.count("svg") == 6
    fallen = reader.words[reader.words.index("unknown structure: compound_id") :]
    assert next(word for word in fallen[1:] if word) == "3"


def test_progress_counts_distinct_structures_up_to_all(spoiled):
    _, _, calls = spoiled
    assert calls[-1] == (84, 84)


def test_a_second_call_finds_the_first_ones_work(spoiled, monkeypatch):
    partner, prepared, _ = spoiled
    before = content(prepared.directory)
    monkeypatch.setattr(preparation, "find_parents", None)  # whoever needs it fails
    again = prepare(partner.write(prepared.directory.parent), prepared.directory)
    assert again == prepared
    assert content(prepared.directory) == before


def test_csv_and_parquet_give_the_same_tables_and_other_rules_replace_them(tmp_path):
    partner = random_partner(seed=2, n_structures=40)
    one = prepare(partner.write(tmp_path), tmp_path / "one")
    from_csv = prepare(partner.write(tmp_path, suffix="csv"), tmp_path / "csv", workers=2)
    for table in CONTRACTS:
        assert from_csv.path(table).read_bytes() == one.path(table).read_bytes()
    other = prepare(partner.write(tmp_path), tmp_path / "one", rules=simple(training=8, evaluation=5))
    assert other.directory == one.directory
    assert min(tables_of(other)["endpoints"].column("n_active").to_pylist()) >= 8
    assert beside(tmp_path / "one") == [".csv.cache", ".csv.lock", ".one.cache", ".one.lock", "csv", "one"]


def test_the_identity_follows_from_content_rules_and_secret(tmp_path):
    files = random_partner(seed=2, n_structures=5).write(tmp_path / "a")
    same = random_partner(seed=2, n_structures=5).write(tmp_path / "b")
    others = [
        identity_of(
            random_partner(seed=3, n_structures=5).write(tmp_path / "c"), rules_of("simple"), secret=SECRET
        ),
        identity_of(files, simple(training=25, evaluation=10), secret=SECRET),
        identity_of(files, rules_of("simple"), secret=bytes(32)),
    ]
    identity = identity_of(files, rules_of("simple"), secret=SECRET)
    assert identity == identity_of(same, rules_of("simple"), secret=SECRET)
    assert len({identity, *others}) == 4


@pytest.mark.parametrize("damage", ["labels.arrow", "prepared.json", "data_report.json", "shorter"])
def test_a_damaged_dataset_is_not_found(spoiled, tmp_path, damage):
    _, prepared, _ = spoiled
    copy = tmp_path / "copy"
    shutil.copytree(prepared.directory, copy)
    identity = json.loads((copy / "prepared.json").read_bytes())["identity"]
    assert find_prepared(copy, identity=identity) is not None
    assert find_prepared(copy, identity="0" * 64) is None
    if damage == "shorter":
        os.truncate(copy / "fingerprints.arrow", 100)
    else:
        (copy / damage).unlink()
    assert find_prepared(copy, identity=identity) is None


def test_publishing_replaces_and_leaves_nothing_of_an_interrupted_one(tmp_path):
    for name in ("prepared", ".prepared.part", ".prepared.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    publish(tmp_path / ".prepared.part", tmp_path / "prepared")
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]
    assert (tmp_path / "prepared" / "from").read_text() == ".prepared.part"


def test_forms_of_one_compound_become_one_structure_with_the_median_of_their_values(tmp_path):
    partner = random_partner(seed=3, n_structures=20)
    forms = ["C[C@H](N)c1ccccc1", "C[C@@H](N)c1ccccc1.Cl", "CC([NH3+])c1ccccc1.[Cl-]", "C[C@H](N)c1ccccc1"]
    for number, (smiles, value) in enumerate(zip(forms, (9.0, 8.0, 4.0, 4.1), strict=True)):
        partner.structures.append((f"form-{number}", smiles))
        partner.activities.append((f"form-{number}", "potency", "=", value, "p"))
    prepared = prepare(partner.write(tmp_path), tmp_path / "prepared")
    tables = tables_of(prepared)
    keys = tables["fingerprints"].column("structure_key").to_pylist()
    structure = keys.index(structure_key("CC(N)c1ccccc1", secret=SECRET))
    names = tables["endpoints"].column("endpoint_id").to_pylist()
    labels = {
        names[r["endpoint_index"]]: r["label"]
        for r in tables["labels"].to_pylist()
        if r["structure_index"] == structure
    }
    assert labels == {name: int(float(name.removeprefix("potency>=")) <= 6.05) for name in labels}  # median
    assert {"potency>=5.5", "potency>=6.5"} <= set(labels)
    assert len(keys) == 21


KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.featurization import preparation
from tasks.featurization.preparation import PartnerFiles, prepare_dataset
from tests.featurization.partner import SECRET, SMALL_QUORUMS

def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

moment, home = sys.argv[1], Path(sys.argv[2])
if moment == "before publishing":
    preparation.publish = die
files = PartnerFiles(*(home / f"{name}.parquet" for name in ("assays", "activities", "structures")))
prepare_dataset(files, consortium_secret=SECRET, output=home / "prepared", workers=1, rules=SMALL_QUORUMS,
                progress=die if moment == "while featurizing" else lambda *_: None)
"""


@pytest.mark.parametrize("moment", ["while featurizing", "before publishing"])
def test_killed_at_any_moment_it_can_be_called_again(tmp_path, moment):
    partner = random_partner(seed=4, n_structures=30)
    files = partner.write(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "prepared").exists()
    assert (tmp_path / ".prepared.part").exists()
    prepared = prepare(files, tmp_path / "prepared")
    assert tables_of(prepared)["fingerprints"].num_rows == 30
    assert beside(tmp_path / "prepared") == [".prepared.cache", ".prepared.lock", "prepared"]


def test_a_refused_file_keeps_its_quarantine_beside_the_output(tmp_path):
    partner = random_partner(seed=5, n_structures=30)
    partner.activities = [(*row[:4], "mg/l") for row in partner.activities]
    with pytest.raises(ContractViolation, match="60 of 60 rows") as caught:
        prepare(partner.write(tmp_path), tmp_path / "prepared")
    assert "prepared-refused" in caught.value.advice
    assert read_table(tmp_path / "prepared-refused" / "activities.arrow", QUARANTINE).num_rows == 60
    assert beside(tmp_path / "prepared") == [".prepared.lock", "prepared-refused"]
    prepare(random_partner(seed=5, n_structures=30).write(tmp_path), tmp_path / "prepared")
    assert beside(tmp_path / "prepared") == [".prepared.cache", ".prepared.lock", "prepared"]


def test_structures_most_of_which_have_no_parent_are_refused_by_reason(tmp_path):
    partner = random_partner(seed=6, n_structures=10)
    partner.structures += [(f"bad-{i}", f"C1C{i}") for i in range(2, 9)] + [
        (f"salt-{i}", "[Na+].[Cl-]") for i in range(4)
    ]
    with pytest.raises(
        ContractViolation, match=r"11 of 21 rows .*parse of smiles: 7 rows; no_carbon of smiles: 4"
    ):
        prepare(partner.write(tmp_path), tmp_path / "prepared")


def test_too_few_measurements_for_any_endpoint_are_refused(tmp_path):
    files = random_partner(seed=7, n_structures=20).write(tmp_path)
    with pytest.raises(
        ContractViolation, match="no endpoint that meets the training quorum of profile simple among 6"
    ):
        prepare(files, tmp_path / "prepared", rules=rules_of("simple"))


def test_a_missing_file_is_refused_by_name(tmp_path):
    files = random_partner(seed=8, n_structures=5).write(tmp_path)
    files.assays.unlink()
    with pytest.raises(ContractViolation, match=r"assays\.parquet: got No such file"):
        prepare(files, tmp_path / "prepared")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consortium_secret": b"short"}, "has 5 bytes, expected 32"),
        ({"workers": 0}, "0 featurization workers"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, options, message):
    files = Partner().write(tmp_path)
    with pytest.raises(SettingsError, match=message) as caught:
        prepare(files, tmp_path / "prepared", **options)
    assert "short" not in str(caught.value)


REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "chembl_5thresh.csv.gz"


@pytest.mark.shared_data
@pytest.mark.skipif(not REAL.exists(), reason="the real data is not beside the checkout")
def test_real_measurements_become_endpoints(tmp_path):
    import pandas as pd

    wide = pd.read_csv(REAL).iloc[::60]
    targets = wide.columns[wide.notna().sum() > 15].drop("smiles")
    long = wide[["smiles", *targets]].melt("smiles", var_name="assay", value_name="value").dropna()
    names = {smiles: f"C{number}" for number, smiles in enumerate(wide["smiles"])}
    partner = Partner(structures=[(name, smiles) for smiles, name in names.items()])
    partner.assays = [(target, "OTHER", "high") for target in targets]
    partner.activities = [(names[s], a, "=", float(v), "p") for s, a, v in long.itertuples(index=False)]
    prepared = prepare(partner.write(tmp_path), tmp_path / "prepared")
    rows = prepared.report["files"][0]["rows"]
    assert rows["read"] == len(names) == rows["accepted"] + rows["quarantined"]
    assert rows["accepted"] >= 0.98 * len(names)
    assert prepared.report["endpoints"]["prepared"] >= 10
    folds = np.bincount(tables_of(prepared)["fingerprints"].column("fold").to_numpy(), minlength=5)
    assert folds.min() > 0.1 * folds.sum()
