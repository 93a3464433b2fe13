"""A dataset appears whole or not at all, once, and is never taken for another."""

import dataclasses
import hashlib
import hmac
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import ContractViolation, SettingsError
from tasks.simulation.companies import SplitSettings
from tasks.simulation.datasets import (
    CARD,
    SECRET,
    DatasetCard,
    counted,
    dataset_name,
    find_or_build,
    generator,
    open_dataset,
    simulated_secret,
    split_draft,
)
from tests.simulation.companies_on_disk import file_bytes
from tests.simulation.test_companies import source_of

ROOT = Path(__file__).resolve().parents[2]
PARTNERS = 3
STEPS = 3 * PARTNERS + 2  # a table each, the card, and the name that publishes


def draft():
    return split_draft(
        source_of(seed=7), split=SplitSettings(partners=PARTNERS), seed=0, left_out={"bad rows": 2}
    )


def card_of(draft, *, name="tiny", digest="d1"):
    return DatasetCard(
        name=name,
        origin="wide",
        simulated_assays=False,
        seed=0,
        partners=tuple(company.name for company in draft.companies),
        counts=counted(draft.companies),
        licence_note="invented here",
        recipe_digest=digest,
        left_out=dict(draft.left_out),
    )


def build(directory, *, digest="d1", made=lambda _: draft()):
    return find_or_build(
        directory,
        name="tiny",
        recipe_digest=digest,
        card=lambda found: card_of(found, digest=digest),
        build=made,
    )


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    return build(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [0, PARTNERS, STEPS - 2, STEPS - 1])
def test_kill_9_while_building_leaves_nothing_half_done_and_the_same_call_builds_it(tmp_path, whole, step):
    command = [sys.executable, "-m", "tests.simulation.killed_builder", str(tmp_path), str(step)]
    killed = subprocess.run(command, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "tiny").exists()
    with pytest.raises(SettingsError):
        open_dataset(tmp_path / "tiny")
    assert file_bytes(build(tmp_path)) == file_bytes(whole)
    assert not list(tmp_path.glob(".building-*"))


def test_a_builder_that_is_not_killed_finishes_in_so_many_steps(tmp_path, whole):
    # The control of the test above: every step it names exists, and there is no further one.
    command = [sys.executable, "-m", "tests.simulation.killed_builder", str(tmp_path), str(STEPS)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert file_bytes(open_dataset(tmp_path / "tiny")) == file_bytes(whole)


def test_of_builders_at_once_one_builds_and_all_get_it(tmp_path):
    built, found, start = [], [], threading.Barrier(4)

    def made(unfinished):
        built.append(unfinished)
        return draft()

    def ask():
        start.wait()
        found.append(build(tmp_path, made=made).path)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(built), found) == (1, [tmp_path / "tiny"] * 4)


def test_a_name_taken_by_another_recipe_is_refused_and_left_as_it_is(tmp_path):
    before = file_bytes(build(tmp_path))
    with pytest.raises(SettingsError, match="'tiny' exists already") as refused:
        build(tmp_path, digest="d2")
    assert "--name" in refused.value.advice
    assert file_bytes(open_dataset(tmp_path / "tiny")) == before


def test_a_table_that_breaks_its_contract_is_never_published(tmp_path):
    def made(_):
        good = draft()
        first = good.companies[0]
        place = first.activities.schema.get_field_index("value")
        endless = pa.array([float("inf")] * first.activities.num_rows)
        broken = dataclasses.replace(first, activities=first.activities.set_column(place, "value", endless))
        return dataclasses.replace(good, companies=(broken, *good.companies[1:]))

    with pytest.raises(ContractViolation):
        build(tmp_path, made=made)
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("missing", [CARD, SECRET, "partner-b/activities.parquet"])
def test_a_directory_that_lacks_a_file_is_no_dataset(tmp_path, missing):
    dataset = build(tmp_path)
    (dataset.path / missing).unlink()
    with pytest.raises(SettingsError, match="expected the directory of a dataset") as refused:
        open_dataset(dataset.path)
    assert "motet import" in refused.value.advice


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": "x"}'])
def test_a_card_that_cannot_be_read_is_refused(tmp_path, content):
    dataset = build(tmp_path)
    (dataset.path / CARD).write_bytes(content)
    with pytest.raises(SettingsError, match=r"no readable dataset\.json"):
        open_dataset(dataset.path)


def test_the_secret_is_32_bytes_for_its_owner_only_and_follows_from_the_public_seed(whole):
    expected = hmac.new(b"motet/simulated-consortium-secret/v1", bytes(8), hashlib.sha256).digest()
    assert whole.consortium_secret == simulated_secret(0) == expected
    assert stat.S_IMODE((whole.path / SECRET).stat().st_mode) == 0o600


def test_each_purpose_draws_from_a_stream_of_its_own():
    same = [generator(1, "companies").integers(0, 2**62) for _ in range(2)]
    others = [generator(1, "assays").integers(0, 2**62), generator(2, "companies").integers(0, 2**62)]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 3


@given(st.text(max_size=100))
def test_a_dataset_name_is_always_a_harmless_directory_name_or_refused(text):
    try:
        name = dataset_name(text)
    except SettingsError:
        assert not any(char.isascii() and char.isalnum() for char in text)
    else:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert 0 < len(name) <= 60
        assert dataset_name(name.strip("-")) == name.strip("-")
