"""The embedded dataset: the same everywhere, labelled as simulated, with something to gain and a control."""

import itertools
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from rdkit import Chem, rdBase
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from data_contracts.errors import SettingsError
from tasks.simulation import embedded as embedded_module
from tasks.simulation.assays import AssaySettings
from tasks.simulation.datasets import DatasetCard, permuted_dataset
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset, described
from tasks.simulation.molecules import NCI_FILE, WEHI_FILE, embedded_structures, rdkit_data_directory
from tasks.simulation.structure_groups import group_structures
from tests.simulation.companies_on_disk import content, file_bytes, ids, tables
from tests.simulation.conftest import PARTNERS, SEED, SMALL

REBUILD = """
import sys
from pathlib import Path
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset
settings = EmbeddedSettings.model_validate_json(sys.argv[2])
build_embedded_dataset(Path(sys.argv[1]), partners=int(sys.argv[3]), seed=int(sys.argv[4]), settings=settings)
"""


def test_another_process_with_another_hash_seed_builds_the_same_bytes(embedded, tmp_path):
    arguments = [str(tmp_path), SMALL.model_dump_json(), str(PARTNERS), str(SEED)]
    subprocess.run(
        [sys.executable, "-c", REBUILD, *arguments],
        env={"PYTHONHASHSEED": "4321", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    (rebuilt,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert rebuilt.name == embedded.name
    assert file_bytes(type(embedded)(rebuilt)) == file_bytes(embedded)


def test_the_same_settings_find_the_dataset_without_building_it_again(embedded, datasets, monkeypatch):
    monkeypatch.setattr(embedded_module, "embedded_structures", lambda _: pytest.fail("was built again"))
    found = build_embedded_dataset(datasets, partners=PARTNERS, seed=SEED, settings=SMALL)
    assert found.path == embedded.path


@pytest.mark.parametrize("change", [{"seed": SEED + 1}, {"partners": PARTNERS + 1}])
def test_another_seed_or_number_of_companies_is_another_dataset(embedded, tmp_path, change):
    other = build_embedded_dataset(
        tmp_path, **({"partners": PARTNERS, "seed": SEED} | change), settings=SMALL
    )
    assert other.name != embedded.name
    assert content(other) != content(embedded)
    assert (other.consortium_secret == embedded.consortium_secret) == ("seed" not in change)


def test_everything_says_that_the_assays_are_simulated(embedded):
    card = embedded.card
    assert card.simulated_assays
    assert card.simulated_companies
    assert card.origin == "embedded-simulated"
    assert "simulated" in card.licence_note
    for partner in embedded.partners:
        found = tables(embedded, partner)
        assert all(name.startswith("SYN-") for name in ids(found["assays"], "assay_id"))
        assert all(name.startswith("SYN-") for name in ids(found["activities"], "assay_id"))


def test_a_card_cannot_deny_that_its_companies_are_simulated(embedded):
    denial = embedded.card.model_dump() | {"simulated_companies": False}
    with pytest.raises(ValueError, match="simulated_companies"):
        DatasetCard.model_validate(denial)


def test_the_card_counts_what_the_files_hold(embedded):
    found = {
        name: {kind: table.num_rows for kind, table in tables(embedded, name).items()}
        for name in embedded.partners
    }
    assert {name: counts.model_dump() for name, counts in embedded.card.counts.items()} == found
    drawn = sum(counts["structures"] for counts in found.values()) + sum(embedded.card.left_out.values())
    assert drawn == SMALL.max_structures


def test_no_two_companies_share_a_compound_not_even_as_salt_tautomer_or_stereoisomer(embedded):
    smiles = {name: ids(tables(embedded, name)["structures"], "smiles") for name in embedded.partners}
    everything = [text for texts in smiles.values() for text in texts]
    owner = [name for name, texts in smiles.items() for _ in texts]
    skeleton = group_structures(everything).skeleton
    assert len({(group, name) for group, name in zip(skeleton, owner, strict=True)}) == len(set(skeleton))
    # An independent witness: InChI's connectivity layer, which knows no tautomers, stereo or protons.
    with rdBase.BlockLogs():
        blocks = {name: {_connectivity(text) for text in texts[::3]} for name, texts in smiles.items()}
    assert all(not blocks[a] & blocks[b] for a, b in itertools.combinations(blocks, 2))


def _connectivity(smiles):
    return Chem.MolToInchiKey(Chem.MolFromSmiles(smiles))[:14]


def test_companies_share_assays_and_have_some_of_their_own(embedded):
    assays = {name: set(ids(tables(embedded, name)["assays"], "assay_id")) for name in embedded.partners}
    holders = Counter(assay for names in assays.values() for assay in names)
    everywhere = round(SMALL.split.share_everywhere * SMALL.assays.n_assays)
    assert sum(count == PARTNERS for count in holders.values()) == everywhere
    assert all(any(holders[assay] == 1 for assay in names) for names in assays.values())


def test_the_control_keeps_everything_but_which_result_belongs_to_which_compound(embedded, control):
    assert control.card.permuted_labels
    assert "permuted" in control.name
    for partner in embedded.partners:
        real, shuffled = tables(embedded, partner), tables(control, partner)
        assert shuffled["structures"] == real["structures"]
        assert shuffled["assays"] == real["assays"]
        keys = ["compound_id", "assay_id"]
        assert shuffled["activities"].select(keys) == real["activities"].select(keys)
        assert shuffled["activities"] != real["activities"]
        results = ["assay_id", "relation", "value", "unit"]
        rows = (table["activities"].select(results).to_pylist() for table in (real, shuffled))
        assert _multiset(next(rows)) == _multiset(next(rows))


def _multiset(rows):
    return Counter(tuple(row.values()) for row in rows)


def test_shuffling_a_published_dataset_is_building_the_control(embedded, control, tmp_path):
    shuffled = permuted_dataset(embedded, directory=tmp_path)
    assert content(shuffled) == content(control)
    assert shuffled.card.permuted_labels
    assert shuffled.consortium_secret == embedded.consortium_secret
    assert permuted_dataset(shuffled, directory=tmp_path) is shuffled


def test_together_they_learn_more_than_alone_and_nothing_from_the_control(embedded, control):
    # An independent learner: ridge regression on ECFP4 bits, a fifth of each company held out.
    with threadpool_limits(1):  # threads of small matrices only wait for each other
        alone, together = _mean_auroc(embedded, pooled=False), _mean_auroc(embedded, pooled=True)
        nothing = _mean_auroc(control, pooled=True)
    assert alone > 0.6
    assert together > alone + 0.01
    assert abs(nothing - 0.5) < 0.05


def _mean_auroc(dataset, *, pooled):
    """Mean over companies and shared assays of the AUROC at pIC50 >= 6 on held-out compounds."""
    labelled = {(name, assay): rows for name in dataset.partners for assay, rows in _labelled(dataset, name)}
    scores = []
    for (partner, assay), (bits, active) in labelled.items():
        teachers = [
            rows for (name, of), rows in labelled.items() if of == assay and (pooled or name == partner)
        ]
        x, y = (
            np.concatenate([column[_held_in(column)] for column in part])
            for part in zip(*teachers, strict=True)
        )
        scores.append(roc_auc_score(active[~_held_in(active)], _ridge(x, y, bits[~_held_in(bits)])))
    return float(np.mean(scores))


def _held_in(rows):
    return np.arange(len(rows)) % 5 != 0


def _ridge(x, y, wanted, *, penalty=30.0):
    weights = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y - y.mean())
    return wanted @ (x.T @ weights)


def _labelled(dataset, partner):
    found = tables(dataset, partner)
    _, bits, _ = described(ids(found["structures"], "smiles"))
    row_of = {name: row for row, name in enumerate(ids(found["structures"], "compound_id"))}
    by_assay = {}
    for row in found["activities"].to_pylist():
        p = row["value"] if row["unit"] == "p" else 9 - np.log10(row["value"])
        by_assay.setdefault(row["assay_id"], []).append((row_of[row["compound_id"]], p >= 6.0))
    for assay, values in by_assay.items():
        rows, active = np.array(values).T
        if len(values) >= 100:
            yield assay, (bits[rows].astype(np.float64), active)


@pytest.mark.parametrize("missing", [WEHI_FILE, NCI_FILE])
def test_an_rdkit_without_the_molecules_is_refused_with_a_way_out(tmp_path, missing):
    for name in {WEHI_FILE, NCI_FILE} - {missing}:
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(rdkit_data_directory() / name, tmp_path / name)
    with pytest.raises(SettingsError, match=missing.name) as refused:
        embedded_structures(tmp_path)
    assert "--activities" in refused.value.advice


@pytest.mark.parametrize("partners", [1, 27])
def test_an_impossible_number_of_companies_is_refused(tmp_path, partners):
    with pytest.raises(SettingsError, match=f"among {partners} companies"):
        build_embedded_dataset(tmp_path, partners=partners)
    assert list(tmp_path.iterdir()) == []


def test_a_world_too_small_for_its_companies_is_refused_and_leaves_no_dataset(tmp_path):
    tiny = EmbeddedSettings(max_structures=500, assays=AssaySettings(n_assays=2, median_size=20))
    with pytest.raises(SettingsError, match="needs at least 100") as refused:
        build_embedded_dataset(tmp_path, partners=8, settings=tiny)
    assert "--partners" in refused.value.advice
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
