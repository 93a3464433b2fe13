"""Featurization on a real Dask cluster gives what the processes of one machine give, byte for byte."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.errors import SettingsError, WorkFailed
from flows.cluster import on_dask
from flows.site_settings import SiteSettings
from tasks.featurization import executors, parents
from tasks.featurization.executors import OPTIONS, Processes, SharedBlocks, answer_block
from tasks.featurization.preparation import prepare_dataset
from tests.featurization.partner import SECRET, SMALL_QUORUMS, random_partner

ROOT = Path(__file__).resolve().parents[2]
ON_DASK = """
import asyncio, sys
from pathlib import Path
from flows.cli.performing import perform, prefect_with

home, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
with prefect_with(home, "flows.cluster", verbose=True):
    from flows.cluster import on_dask
    from tasks.featurization import executors, parents
    from tasks.featurization.preparation import PartnerFiles, prepare_dataset
    from tests.featurization.partner import SECRET, SMALL_QUORUMS

    executors.CHUNK_STRUCTURES = parents.CHUNK_STRUCTURES = 10
    executors.BLOCK_STRUCTURES = parents.BLOCK_STRUCTURES = 20
    given = dict(consortium_secret=SECRET, output=home / "prepared", workers=1, rules=SMALL_QUORUMS)
    executor = on_dask("local", workers=2)
    work = lambda: asyncio.to_thread(prepare_dataset, PartnerFiles(*files), executor=executor, **given)
    perform(work)
"""


@pytest.fixture
def small_blocks(monkeypatch):
    """Five shards of 80 structures, of two chunks each."""
    for module in (executors, parents):
        monkeypatch.setattr(module, "CHUNK_STRUCTURES", 10)
        monkeypatch.setattr(module, "BLOCK_STRUCTURES", 20)


@pytest.fixture
def files(tmp_path):
    return random_partner(seed=3).write(tmp_path / "files")


def prepared(files, home, executor):
    given = {"consortium_secret": SECRET, "workers": 1, "rules": SMALL_QUORUMS}
    return prepare_dataset(files, output=home / "prepared", executor=executor, **given)


def left_by(home):
    """What a preparation leaves: shards of the cache and tables, by name."""
    cache = home / ".prepared.cache"
    places = [*cache.rglob("*"), *(home / "prepared").glob("*.arrow")]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in places if path.is_file()}


@pytest.mark.timeout(400)
@pytest.mark.skipif(
    importlib.util.find_spec("prefect_dask") is None, reason="the extra dask is not installed"
)
def test_a_real_cluster_gives_the_same_bytes_and_prefect_learns_no_structure(files, tmp_path, small_blocks):
    home = tmp_path / "dask"
    paths = [str(path) for path in (files.assays, files.activities, files.structures)]
    done = subprocess.run(
        [sys.executable, "-c", ON_DASK, str(home), *paths],
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "featurize-structures" in done.stderr  # it was a flow of Prefect's
    prepared(files, tmp_path / "processes", Processes(1))
    ours, theirs = left_by(tmp_path / "processes"), left_by(home)
    assert len([name for name in ours if ".cache" in name]) == 4
    assert theirs == ours
    longest = max(random_partner(seed=3).structures, key=lambda row: len(row[1]))[1]
    seen = [path.read_bytes() for path in (home / "prefect").rglob("*") if path.is_file()]
    assert seen
    assert not any(longest.encode() in content for content in seen)
    assert longest not in done.stderr


def on_this_machine(shared, blocks):
    for block in reversed(blocks):  # in whatever order
        answer_block(shared, block)


def test_blocks_answered_in_another_order_give_the_same_bytes(files, tmp_path, small_blocks):
    prepared(files, tmp_path / "blocks", SharedBlocks(on_this_machine))
    prepared(files, tmp_path / "processes", Processes(1))
    assert left_by(tmp_path / "blocks") == left_by(tmp_path / "processes")


def test_what_was_answered_before_an_interruption_is_not_asked_again(files, tmp_path, small_blocks):
    asked = []

    def stops_after_two(shared, blocks):
        asked.append(list(blocks))
        on_this_machine(shared, blocks[:2])
        if len(asked) == 1:
            raise WorkFailed("the cluster went away")
        on_this_machine(shared, blocks)

    with pytest.raises(WorkFailed, match="went away"):
        prepared(files, tmp_path, SharedBlocks(stops_after_two))
    prepared(files, tmp_path, SharedBlocks(stops_after_two))
    assert asked[1] == asked[0][2:]
    prepared(files, tmp_path / "processes", Processes(1))
    assert left_by(tmp_path) == left_by(tmp_path / "processes")


def test_a_machine_with_another_rdkit_is_refused_by_name(files, tmp_path, monkeypatch):
    def elsewhere(shared, blocks):
        with monkeypatch.context() as there:
            there.setattr(executors.rdBase, "rdkitVersion", "2020.03.1")
            on_this_machine(shared, blocks)

    with pytest.raises(WorkFailed, match=r"answered with RDKit 2020\.03\.1"):
        prepared(files, tmp_path, SharedBlocks(elsewhere))


def test_a_machine_that_does_not_share_the_directory_says_so(tmp_path):
    with pytest.raises(WorkFailed, match="does not see the directory") as refused:
        answer_block(tmp_path / "elsewhere", "0" * 32)
    assert "share" in refused.value.advice


def test_an_answer_that_is_damaged_is_asked_for_again(files, tmp_path):
    def damages(shared, blocks):
        for block in blocks:
            (shared / f"{block}.answer.arrow").write_bytes(b"ARROW1")

    with pytest.raises(WorkFailed, match="without a readable answer"):
        prepared(files, tmp_path, SharedBlocks(damages))
    prepared(files, tmp_path, SharedBlocks(on_this_machine))


def test_no_key_lies_in_the_shared_directory(files, tmp_path):
    seen = []

    def look(shared, blocks):
        on_this_machine(shared, blocks)
        seen.extend((path.name, path.read_bytes()) for path in shared.iterdir())

    prepared(files, tmp_path, SharedBlocks(look))
    assert OPTIONS in {name for name, _ in seen}
    assert not any(SECRET in content or SECRET.hex().encode() in content for _, content in seen)
    assert not list((tmp_path / ".prepared.cache").glob("blocks-*"))


@pytest.mark.parametrize("address", ["", "localhost", "http://host:8786", "tcp://host", "tcp://a b:1"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(SettingsError, match="no address of a scheduler"):
        on_dask(address, workers=1)
    with pytest.raises(ValueError, match="dask"):
        SiteSettings(role="coordinator", name="acme", dask=address)


def test_without_the_extra_its_name_is_the_advice(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="prefect-dask") as refused:
        on_dask("local", workers=1)
    assert "motet[dask]" in refused.value.advice
