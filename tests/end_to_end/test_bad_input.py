"""Files that a user brings by mistake or an attacker on purpose: a named refusal, an exit code, nothing half made."""

import gzip

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.conftest import CANARY_SMILES, TRAINING, last_object, motet

pytestmark = pytest.mark.timeout(300)


def _empty(source, target):
    target.write_bytes(b"")


def _truncated_parquet(source, target):
    pq.write_table(pa_csv.read_csv(source), target)
    data = target.read_bytes()
    target.write_bytes(data[: len(data) - 200])


def _bomb(source, target):
    """Hundreds of megabytes in a few kilobytes, 30,000-fold: one value repeated."""
    rows = 20_000_000
    column = pa.DictionaryArray.from_arrays(pa.array([0]).cast(pa.int32()).take(pa.array([0])), ["=" * 1000])
    table = pa.table({"relation": pa.chunked_array([column.take(pa.array([0] * 1000))] * (rows // 1000))})
    pq.write_table(table, target, compression="zstd")


def _no_such_file(source, target):
    """Leave nothing at the path."""


def _binary(source, target):
    target.write_bytes(bytes(range(256)) * 64)


def _compressed_rubbish(source, target):
    target.write_bytes(gzip.compress(b"\x00\xff" * 100_000))


DAMAGES = [_empty, _truncated_parquet, _bomb, _no_such_file, _binary, _compressed_rubbish]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_table_is_refused_by_name_and_leaves_nothing(own_files, tmp_path, damage):
    broken = tmp_path / "activities.parquet"
    damage(own_files / "activities.csv", broken)
    home = tmp_path / "motet-home"
    arguments = ["--activities", broken, "--structures", own_files / "structures.csv", *TRAINING, "--json"]
    refused = motet("run", *arguments, home=home, check=False)
    assert refused.returncode in {2, 3}, refused.stderr
    assert "activities.parquet" in refused.stderr
    assert "try:" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert last_object(refused)["exit_code"] == refused.returncode
    assert not [path for path in (home / "data").glob("*") if path.is_dir() and not path.name.startswith(".")]


def test_bad_rows_are_set_aside_and_counted_and_no_message_repeats_them(own_files, tmp_path):
    from tasks.simulation.own_files import import_own_files

    activities = (own_files / "activities.csv").read_text().splitlines()
    structures = (own_files / "structures.csv").read_text().splitlines()
    wrong_unit = activities[5].rsplit(",", 1)[0] + ',"furlongs"'
    (tmp_path / "activities.csv").write_text("\n".join([*activities, wrong_unit, wrong_unit]) + "\n")
    (tmp_path / "structures.csv").write_text("\n".join([*structures, f'"BAD-1","{CANARY_SMILES}\t"']) + "\n")
    dataset = import_own_files(
        activities=tmp_path / "activities.csv",
        structures=tmp_path / "structures.csv",
        assays=own_files / "assays.csv",
        directory=tmp_path / "data",
        partners=3,
    )
    assert dataset.card.left_out["quarantined activities"] == 2
    assert dataset.card.left_out["quarantined structures"] == 1
    for path in (dataset.path / "quarantine").rglob("*"):
        assert CANARY_SMILES.encode() not in path.read_bytes()
        assert b"furlongs" not in path.read_bytes()
