"""A small consortium on a user's own files, with a canary in them, run once by the real command."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tasks.simulation.assays import AssaySettings
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset

CANARY_SMILES = "OC(=O)C(Br)(CCl)CCC1CCN(CC1)S(=O)(=O)c1ccc(I)cc1"
CANARY_ID = "CANARY-COMPOUND-7Q2X"
CANARY_VALUE = "6.1234567"
TRAINING = ("--partners", "3", "--hidden", "16", "--rounds", "2", "--local-epochs", "1", "--batch-size", "32")
PATIENCE_SECONDS = 240


@dataclass(frozen=True)
class Finished:
    """A run that ended: what it printed, its result, and where it lies."""

    home: Path
    output: str
    result: dict

    @property
    def directory(self):
        return Path(self.result["directory"])


def command(*arguments, home):
    return [sys.executable, "-m", "flows.cli", *map(str, arguments), "--home", str(home)]


def motet(*arguments, home, check=True):
    """Run one command as a person would."""
    done = subprocess.run(
        command(*arguments, home=home), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def last_object(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def own_files(tmp_path_factory):
    """Activities, structures and assays of one user, as CSV, with a canary compound measured everywhere."""
    place = tmp_path_factory.mktemp("own")
    settings = EmbeddedSettings(
        max_structures=900, assays=AssaySettings(n_assays=5, n_families=2, median_size=700)
    )
    dataset = build_embedded_dataset(place / "source", partners=3, seed=7, settings=settings)
    files = [dataset.files(name) for name in dataset.partners]
    tables = {
        name: pa.concat_tables([pq.read_table(getattr(each, name)) for each in files])
        for name in ("assays", "activities", "structures")
    }
    tables["assays"] = tables["assays"].group_by(tables["assays"].column_names).aggregate([])
    n_assays = tables["assays"].num_rows
    canary = {
        "activities": {
            "compound_id": [CANARY_ID] * n_assays,
            "assay_id": tables["assays"]["assay_id"].to_pylist(),
            "relation": ["="] * n_assays,
            "value": [float(CANARY_VALUE)] * n_assays,
            "unit": ["p"] * n_assays,
        },
        "structures": {"compound_id": [CANARY_ID], "smiles": [CANARY_SMILES]},
    }
    for name, rows in canary.items():
        tables[name] = pa.concat_tables([tables[name], pa.table(rows)], promote_options="default")
    for name, table in tables.items():
        pa_csv.write_csv(table, place / f"{name}.csv")
    return place


@pytest.fixture(scope="session")
def run_arguments(own_files):
    files = [
        argument
        for name in ("activities", "structures", "assays")
        for argument in (f"--{name}", own_files / f"{name}.csv")
    ]
    return ["run", *files, *TRAINING, "--run-id", "first", "--verbose", "--json"]


@pytest.fixture(scope="session")
def finished(run_arguments, tmp_path_factory):
    """The run that nobody disturbed."""
    home = tmp_path_factory.mktemp("undisturbed") / "motet-home"
    done = motet(*run_arguments, home=home)
    return Finished(home=home, output=done.stdout + done.stderr, result=last_object(done))


@pytest.fixture(scope="session", autouse=True)
def _no_stray_servers():
    """Prefect's temporary servers must not outlive the commands that started them."""
    yield
    left = [
        entry
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"ppid {os.getpid()}" in _describe(entry)
    ]
    assert not left


def _describe(entry):
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    return f"ppid {fields[1]}" if "prefect.server" in line else ""
