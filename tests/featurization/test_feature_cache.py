"""The cache of featurized structures: found again by keyed names, whatever happened to its files."""

import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.catalogue import FEATURIZED_STRUCTURES
from tasks.featurization import executors, parents
from tasks.featurization.executors import Processes
from tasks.featurization.feature_cache import FeatureCache, names_of
from tasks.featurization.key_positions import UNKNOWN, KeyPositions
from tasks.featurization.parents import find_parents
from tasks.featurization.preparation_rules import FingerprintRule, FoldRule, StructureRules
from tasks.featurization.structure_recipe import StructureRecipe
from tests.featurization.partner import SECRET, wehi_molecules

KEY = bytes(32)
MOLECULES = wehi_molecules(40)


def silent(_done, _total):
    pass


def recipe(**rules):
    return StructureRecipe(StructureRules(**rules), SECRET)


def found(smiles, cache, *, rules=None, progress=silent):
    return find_parents(
        pa.chunked_array([pa.array(smiles)]),
        recipe=rules or recipe(),
        cache=cache,
        executor=Processes(1),
        progress=progress,
    )


def rows_of(result, fold=None):
    kept = np.arange(len(result.key))
    batches = list(result.batches(kept, fold=result.fold if fold is None else fold))
    return [row for batch in batches for row in batch.to_pylist()]


def test_names_are_keyed_and_follow_the_text():
    texts = pa.array(["C", "CC", "C"])
    names = names_of(texts, key=KEY).to_pylist()
    assert names[0] == names[2] != names[1]
    assert set(names).isdisjoint(names_of(texts, key=b"another").to_pylist())


def test_only_what_is_not_cached_is_featurized(tmp_path):
    calls = []
    found(MOLECULES[:30], tmp_path)
    again = found(MOLECULES, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (30, 40)  # thirty are there before any worker has started
    assert rows_of(again) == rows_of(found(MOLECULES, tmp_path / "new"))


def test_a_second_run_starts_no_worker(tmp_path, monkeypatch):
    first = found(MOLECULES, tmp_path)
    monkeypatch.setattr(executors, "WorkerPool", None)
    assert rows_of(found(MOLECULES, tmp_path)) == rows_of(first)


def test_what_was_finished_before_a_failure_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "CHUNK_STRUCTURES", 5)
    monkeypatch.setattr(parents, "BLOCK_STRUCTURES", 10)

    def stop(done, _total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(MOLECULES, tmp_path, progress=stop)
    calls = []
    found(MOLECULES, tmp_path, progress=lambda done, _: calls.append(done))
    assert calls[0] >= 20


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_shard_is_made_again(tmp_path, damage):
    first = rows_of(found(MOLECULES, tmp_path))
    (shard,) = tmp_path.rglob("*.arrow")
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size // 2)
    else:
        shard.write_bytes(b"ARROW1" + bytes(100))
    assert rows_of(found(MOLECULES, tmp_path)) == first


def test_the_cache_holds_no_structure_and_other_rules_do_not_find_it(tmp_path):
    found(MOLECULES, tmp_path)
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*.arrow"))
    assert not any(smiles.encode() in content for smiles in MOLECULES)
    directories = {recipe().digest, recipe(standardization="published").digest}
    directories |= {StructureRecipe(StructureRules(), bytes(32)).digest}
    assert len(directories) == 3


def test_a_cached_row_keeps_its_contract_and_unusable_structures_keep_their_reason(tmp_path):
    result = found(["C1CC", "[Na+].[Cl-]", *MOLECULES[:3]], tmp_path)
    assert result.reason_of_row.to_pylist() == ["parse", "no_carbon", None, None, None]
    assert result.of_row.tolist()[:2] == [-1, -1]
    cache = FeatureCache(tmp_path / recipe().digest)
    assert cache.find(np.empty((0, 2), dtype=np.uint64)).table.schema.equals(FEATURIZED_STRUCTURES.schema)


def test_tautomers_are_one_structure_where_the_profile_says_so(tmp_path):
    pair = ["O=c1cc[nH]cc1", "Oc1ccncc1"]
    assert len(found(pair, tmp_path).key) == 2
    merged = found(pair, tmp_path, rules=recipe(identity="tautomer_hash"))
    assert merged.of_row.tolist() == [0, 0]
    swapped = found(pair[::-1], tmp_path / "other", rules=recipe(identity="tautomer_hash"))
    assert rows_of(swapped) == rows_of(merged)


def test_counts_follow_their_bits_through_a_permutation(tmp_path):
    counted = recipe(fingerprint=FingerprintRule(counts=True))
    keyed = recipe(fingerprint=FingerprintRule(counts=True, permutation="keyed"))
    plain, moved = (rows_of(found(MOLECULES[:5], tmp_path, rules=rules)) for rules in (counted, keyed))
    for one, other in zip(plain, moved, strict=True):
        expected = {int(keyed.permutation[b]): n for b, n in zip(one["bits"], one["counts"], strict=True)}
        assert dict(zip(other["bits"], other["counts"], strict=True)) == expected
        assert other["bits"] == sorted(other["bits"])
    binary = rows_of(found(MOLECULES[:5], tmp_path))
    assert [row["counts"] for row in binary] == [None] * 5
    assert [row["bits"] for row in binary] == [row["bits"] for row in plain]


def test_published_folds_come_through_the_cache(tmp_path):
    rules = recipe(folds=FoldRule(rule="published"))
    result = found(["CCO", "CCCN", *MOLECULES[:10]], tmp_path, rules=rules)
    acyclic = result.fold[result.of_row[:2]]
    assert acyclic[0] == acyclic[1] == rules.fold_of("None")


@given(st.lists(st.text(max_size=12), unique=True, max_size=60), st.lists(st.text(max_size=12), max_size=60))
def test_positions_are_those_of_a_dictionary(known, asked):
    places = {name: place for place, name in enumerate(known)}
    positions = KeyPositions(pa.array(known, pa.string()))
    expected = [places.get(name, UNKNOWN) for name in [*known, *asked]]
    column = pa.array([*known, *asked], pa.string())
    assert positions.of(column).tolist() == expected
    assert positions.of(column.dictionary_encode()).tolist() == expected
