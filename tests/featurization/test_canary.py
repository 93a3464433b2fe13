"""No structure, name, value or key leaves in a message, a log, a report or a quarantine."""

import logging
import subprocess
import sys
import traceback

import pyarrow as pa
import pytest
from rdkit import Chem

from data_contracts.errors import ContractViolation
from tasks.featurization.preparation import prepare_dataset
from tasks.featurization.standardization import Standardizer
from tasks.featurization.worker import REQUEST, Featurizer, Options, encode_frame
from tests.featurization.partner import SECRET, SMALL_QUORUMS, random_partner

UNPARSABLE = "C1CCZ9CANARYQQ"
UNKEKULIZABLE = "c1ccnc1CCPCCSCCNCCOCCF"  # RDKit's message quotes atoms, its log the reason
PENTAVALENT = "CC(C)(C)(C)(C)CCPCCSCCNCCOCCF"
CANARIES = (UNPARSABLE, UNKEKULIZABLE, PENTAVALENT, "CANARYNAME", "8.765432101", SECRET.hex())


@pytest.fixture
def partner():
    found = random_partner(seed=9, n_structures=20)
    bad = (UNPARSABLE, UNKEKULIZABLE, PENTAVALENT)
    found.structures += [(f"CANARYNAME-{number}", smiles) for number, smiles in enumerate(bad)]
    found.activities += [(f"CANARYNAME-{number}", "potency", "=", 8.765432101, "p") for number in range(3)]
    return found


def found_in(text):
    return [canary for canary in CANARIES if canary in text]


def test_rdkit_would_have_said_it(capfd):
    # The control: without our care the structure is on standard error.
    assert Chem.MolFromSmiles(UNPARSABLE) is None
    assert UNPARSABLE in capfd.readouterr().err


@pytest.mark.parametrize("smiles", [UNPARSABLE, UNKEKULIZABLE, PENTAVALENT, "C" * 4990 + "(", "(" * 4999])
def test_a_structure_that_fails_is_not_printed(smiles, capfd):
    assert Standardizer().parent(smiles).reason in {"parse", "failed"}
    assert capfd.readouterr() == ("", "")


def test_a_worker_prints_nothing_but_frames(tmp_path):
    # The real worker, its standard error open: what it says there is what a library would leak.
    program = """
import os, sys
sys.argv = ["worker", str(os.getppid()), "{}"]
from tasks.featurization.worker import main
sys.exit(main())
"""
    smiles = [UNPARSABLE, UNKEKULIZABLE, PENTAVALENT]
    request = encode_frame(pa.record_batch([pa.array(smiles)], schema=REQUEST))
    done = subprocess.run([sys.executable, "-c", program], input=request, capture_output=True, check=True)
    assert done.stderr == b""
    assert not found_in(done.stdout.decode("latin-1"))
    assert Featurizer(Options())(smiles).column("reason").to_pylist() == ["parse"] * 3


def test_preparation_keeps_bad_rows_to_itself(partner, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    files = partner.write(tmp_path / "in")
    prepared = prepare_dataset(
        files, consortium_secret=SECRET, output=tmp_path / "out" / "prepared", workers=1, rules=SMALL_QUORUMS
    )
    assert prepared.report["files"][0]["rows"]["quarantined"] == 3
    everything = "".join([*capfd.readouterr(), caplog.text, repr(prepared)])
    for path in (tmp_path / "out").rglob("*"):
        everything += path.name + (path.read_bytes().decode("latin-1") if path.is_file() else "")
    assert not found_in(everything)
    assert len(everything) > 10_000  # something was looked at


def test_a_refusal_names_counts_only(partner, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    partner.structures = partner.structures[18:]  # 3 of 5 fail
    left = {name for name, _ in partner.structures}
    partner.activities = [row for row in partner.activities if row[0] in left]
    with pytest.raises(ContractViolation, match="3 of 5 rows") as caught:
        prepare_dataset(
            partner.write(tmp_path / "in"),
            consortium_secret=SECRET,
            output=tmp_path / "out",
            workers=1,
            rules=SMALL_QUORUMS,
        )
    said = "".join(traceback.format_exception(caught.value)) + caught.value.advice
    assert not found_in("".join([said, *capfd.readouterr(), caplog.text]))
