"""Nothing of a partner's data or keys outside its own directory: every byte of everything else is searched."""

import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from flows.sites import Site
from tests.end_to_end.conftest import CANARY_ID, CANARY_SMILES, CANARY_VALUE
from tests.messages import readable

pytestmark = pytest.mark.timeout(400)
PARTNERS = ("partner-a", "partner-b", "partner-c")
KEYS = ("identity", "site_secret", "consortium_secret")
SEEDS = ("head", "alone", "round/1", "round/2")


def _own(path, home):
    """Whether a file is a partner's own, or the user's own data set that the companies were made from."""
    inside = path.relative_to(home).parts
    return inside[0] == "data" or (inside[:1] == ("runs",) and inside[2:3] == ("partners",))


def _searchable(path):
    """A file's bytes, the body in a message among them; of a Parquet file its decoded content, where compression would hide a canary."""
    data = readable(path)
    if data[:4] == b"PAR1":
        with pa.BufferOutputStream() as sink:
            table = pq.read_table(path)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            data += sink.getvalue().to_pybytes()
    return data


@pytest.fixture(scope="module")
def elsewhere(finished):
    """Everything that is not a partner's own, by name, the terminal included."""
    for database in (finished.home / "prefect" / "prefect.db", finished.home / "mlflow" / "mlflow.db"):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = {
        path.relative_to(finished.home).as_posix(): _searchable(path)
        for path in finished.home.rglob("*")
        if path.is_file() and not _own(path, finished.home)
    }
    return {**files, "terminal": finished.output.encode()}


def _found(elsewhere, needle):
    needle = needle if isinstance(needle, bytes) else needle.encode()
    assert len(needle) >= 6
    return sorted(name for name, data in elsewhere.items() if needle in data)


def test_the_search_would_find_what_is_there(elsewhere, finished):
    assert any(name.startswith("prefect/") for name in _found(elsewhere, "secure-aggregation"))
    assert "mlflow/mlflow.db" in _found(elsewhere, "motet-trunk")
    assert any("mailbox" in name for name in _found(elsewhere, "partner-a"))
    assert any("/plan/" in name for name in _found(elsewhere, '"cohort":["'))
    own = [path for path in finished.home.rglob("*.parquet") if _own(path, finished.home)]
    assert any(CANARY_SMILES.encode() in _searchable(path) for path in own)


@pytest.mark.parametrize(
    "needle",
    [CANARY_SMILES, Chem.CanonSmiles(CANARY_SMILES), CANARY_ID, CANARY_VALUE],
    ids=["structure", "canonical structure", "compound id", "value"],
)
def test_no_structure_id_or_value_leaves_a_partner(elsewhere, needle):
    assert _found(elsewhere, needle) == []


@pytest.mark.parametrize("partner", PARTNERS)
def test_no_key_or_seed_leaves_a_partner(elsewhere, finished, partner):
    site = Site(partner, finished.directory / "partners" / partner)
    secrets = [(site.root / "keys" / name).read_bytes() for name in KEYS] + [site.key("rounding")]
    needles = [form for secret in secrets for form in (secret, secret.hex())]
    needles += [str(site.seed(label)) for label in SEEDS]
    assert [needle for needle in needles if _found(elsewhere, needle)] == []


def test_no_structure_key_of_prepared_data_leaves_a_partner(elsewhere, finished):
    for partner in PARTNERS:
        with pa.memory_map(
            str(finished.directory / "partners" / partner / "prepared" / "fingerprints.arrow")
        ) as source:
            keys = pa.ipc.open_file(source).read_all()["structure_key"].to_pylist()
        assert [key for key in keys[:50] if _found(elsewhere, key)] == []


def test_a_partners_metrics_are_in_its_own_experiment_only(finished):
    with closing(sqlite3.connect(finished.home / "mlflow" / "mlflow.db")) as connection:
        rows = connection.execute(
            "SELECT e.name, m.key, m.value FROM metrics m JOIN runs r ON r.run_uuid = m.run_uuid "
            "JOIN experiments e ON e.experiment_id = r.experiment_id"
        ).fetchall()
    own = {(name, value) for name, _, value in rows if name.startswith("qsar-training/")}
    assert {name for name, _ in own} == {f"qsar-training/{partner}" for partner in PARTNERS}
    shared = {value for name, _, value in rows if name == "qsar-training" and 0 < abs(value) < 1}
    assert shared
    assert not shared & {value for _, value in own}


def test_the_partners_share_one_secret_and_the_coordinator_has_none(finished):
    secrets = {
        (finished.directory / "partners" / name / "keys" / "consortium_secret").read_bytes()
        for name in PARTNERS
    }
    assert len(secrets) == 1
    keys = {path.name for path in (finished.directory / "coordinator" / "keys").iterdir()}
    assert "consortium_secret" not in keys


def test_no_pickle_lies_anywhere(finished):
    def is_pickle(data):
        return data[:1] == b"\x80" and data[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"} and data[-1:] == b"."

    found = [path for path in finished.home.rglob("*") if path.is_file() and is_pickle(path.read_bytes())]
    assert found == []
    assert not list(finished.home.rglob("*.pkl"))


def test_nobody_else_on_the_machine_may_read_a_file_of_the_home(finished):
    open_to_others = [
        path.relative_to(finished.home).as_posix()
        for path in finished.home.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert open_to_others == []
