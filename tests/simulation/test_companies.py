"""A table dealt among companies: nothing twice, nothing invented, nobody starved in silence."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import SettingsError
from tasks.simulation.companies import (
    SourceTables,
    SplitSettings,
    company_names,
    split_among,
    split_into_companies,
)
from tasks.simulation.own_files import inferred_assays
from tasks.simulation.structure_groups import StructureGroups
from tests.simulation.companies_on_disk import ids


def source_of(*, seed, n_structures=900, n_assays=8, n_skeletons=400, n_clusters=60, density=0.6):
    """Tables of random values whose structures fall into random skeletons and clusters."""
    rng = np.random.default_rng(seed)
    skeleton = rng.integers(0, n_skeletons, n_structures)
    _, skeleton = np.unique(skeleton, return_inverse=True)
    structure, assay = np.nonzero(rng.random((n_structures, n_assays)) < density)
    compounds = pa.array([f"C{number:04d}" for number in range(n_structures)])
    assays = pa.array([f"A{number}" for number in range(n_assays)])
    activities = pa.table(
        {
            "compound_id": compounds.take(pa.array(structure)),
            "assay_id": assays.take(pa.array(assay)),
            "relation": pa.array(["="] * len(structure)),
            "value": pa.array(rng.normal(6, 1, len(structure))),
            "unit": pa.array(["p"] * len(structure)),
        }
    )
    return SourceTables(
        structures=pa.table({"compound_id": compounds, "smiles": ["C"] * n_structures}),
        assays=inferred_assays(activities),
        activities=activities,
        groups=StructureGroups(
            exact=np.arange(n_structures),
            skeleton=skeleton.astype(np.int64),
            cluster=skeleton.astype(np.int64) % n_clusters,
            readable=np.ones(n_structures, dtype=bool),
        ),
    )


def split(source, *, seed=0, **changed):
    return split_into_companies(source, settings=SplitSettings(**changed), rng=np.random.default_rng(seed))


cases = st.tuples(
    st.integers(0, 999), st.integers(2, 4), st.floats(0.2, 0.6), st.floats(0, 0.4), st.floats(0.05, 5)
)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_every_value_goes_to_one_company_at_most_and_none_is_changed(case):
    seed, partners, everywhere, half, taste = case
    source = source_of(seed=seed)
    companies = split(
        source, seed=seed, partners=partners, share_everywhere=everywhere, share_half=half, taste_alpha=taste
    )
    whole = [tuple(row.values()) for row in source.activities.to_pylist()]
    place = {row[:2]: number for number, row in enumerate(whole)}
    dealt = [[tuple(row.values()) for row in company.activities.to_pylist()] for company in companies]
    assert all(row == whole[place[row[:2]]] for rows in dealt for row in rows)
    assert sum(map(len, dealt)) == len({row[:2] for rows in dealt for row in rows})
    for rows in dealt:  # the input's order is kept
        assert [place[row[:2]] for row in rows] == sorted(place[row[:2]] for row in rows)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_what_shares_a_skeleton_stays_together(case):
    seed, partners, everywhere, half, taste = case
    source = source_of(seed=seed)
    companies = split(
        source, seed=seed, partners=partners, share_everywhere=everywhere, share_half=half, taste_alpha=taste
    )
    skeleton = dict(zip(ids(source.structures, "compound_id"), source.groups.skeleton.tolist(), strict=True))
    held = [{skeleton[name] for name in ids(company.structures, "compound_id")} for company in companies]
    assert sum(map(len, held)) == len(set.union(*held))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999))
def test_a_company_holds_exactly_the_structures_and_assays_that_its_values_name(seed):
    for company in split(source_of(seed=seed), seed=seed):
        for table, column in ((company.structures, "compound_id"), (company.assays, "assay_id")):
            assert set(ids(table, column)) == set(ids(company.activities, column))
            assert len(set(ids(table, column))) == table.num_rows


def test_the_shares_say_how_many_companies_run_an_assay():
    companies = split(source_of(seed=3, n_assays=10), partners=4, share_everywhere=0.4, share_half=0.4)
    holders = [
        sum(f"A{number}" in ids(company.assays, "assay_id") for company in companies) for number in range(10)
    ]
    assert sorted(holders) == [1, 1, 2, 2, 2, 2, 4, 4, 4, 4]


def test_the_same_assays_run_everywhere_and_no_compound_is_at_two_companies():
    source = source_of(seed=6, n_assays=10)
    companies = split(source, partners=4, scenario="same-assays")
    assert all(len(set(ids(company.assays, "assay_id"))) == 10 for company in companies)
    assert sum(company.activities.num_rows for company in companies) == source.activities.num_rows
    compounds = [set(ids(company.structures, "compound_id")) for company in companies]
    assert sum(map(len, compounds)) == len(set.union(*compounds)) == source.structures.num_rows


def test_disjoint_assays_keep_every_value_and_share_compounds_only():
    source = source_of(seed=6, n_assays=10)
    companies = split(source, partners=4, scenario="disjoint-assays")
    held = [set(ids(company.assays, "assay_id")) for company in companies]
    assert sorted(map(len, held)) == [2, 2, 3, 3]
    assert sum(map(len, held)) == len(set.union(*held)) == 10
    assert sum(company.activities.num_rows for company in companies) == source.activities.num_rows
    compounds = [set(ids(company.structures, "compound_id")) for company in companies]
    assert len(set.intersection(*compounds)) > 100


@pytest.mark.parametrize("partners", [2, 4, 8])
def test_the_poorest_company_has_half_of_the_mean_although_tastes_differ(partners):
    companies = split(
        source_of(seed=1, n_structures=4000), partners=partners, taste_alpha=0.05, smallest_share=0.5
    )
    sizes = np.array([company.activities.num_rows for company in companies])
    assert sizes.min() >= 0.5 * sizes.mean() * 0.95  # one skeleton's values at most are missing


def test_a_sharp_taste_gives_companies_different_scaffolds_and_a_flat_one_the_same():
    source = source_of(seed=2, n_structures=6000, n_skeletons=4000, n_clusters=40)
    cluster = dict(zip(ids(source.structures, "compound_id"), source.groups.cluster.tolist(), strict=True))

    def distance(alpha):
        one, other = (
            np.bincount([cluster[name] for name in ids(company.structures, "compound_id")], minlength=40)
            for company in split(source, partners=2, taste_alpha=alpha, share_everywhere=1, share_half=0)
        )
        return 0.5 * np.abs(one / one.sum() - other / other.sum()).sum()  # total variation

    assert distance(0.1) > 0.5
    assert distance(1000) < 0.2


@pytest.mark.parametrize(("column", "table"), [("compound_id", "structures"), ("assay_id", "assays")])
def test_an_activity_that_names_nothing_known_is_refused_without_the_name(column, table):
    source = source_of(seed=4)
    changed = source.activities.set_column(
        source.activities.schema.get_field_index(column),
        column,
        pa.array(["CANARY", *ids(source.activities, column)[1:]]),
    )
    broken = SourceTables(source.structures, source.assays, changed, source.groups)
    with pytest.raises(SettingsError, match="1 of") as refused:
        split(broken)
    assert "CANARY" not in str(refused.value)
    assert table in refused.value.advice


def test_a_company_that_could_train_nothing_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"'partner-[a-f]' would get \d+ activity values"):
        split(source_of(seed=5, n_structures=60, n_assays=4), partners=6)


def test_company_names_are_letters_and_so_at_most_26():
    assert company_names(3) == ("partner-a", "partner-b", "partner-c")
    assert split_among(26).partners == 26
    with pytest.raises(SettingsError, match="2 to 26"):
        split_among(27)
