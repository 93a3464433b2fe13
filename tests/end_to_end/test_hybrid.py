"""One command learns classes and numbers on one trunk, with a trunk of each company's own beside it."""

import json

import pyarrow.parquet as pq
import pytest

from data_contracts.catalogue import PREDICTIONS
from tests.end_to_end.conftest import CANARY_SMILES, CANARY_VALUE, Finished, last_object, motet
from tests.messages import readable

pytestmark = pytest.mark.timeout(400)
MORE = ("--modality", "hybrid", "--local-trunk", "8", "--no-pooled-arm", "--run-id", "hybrid", "--json")


@pytest.fixture(scope="module")
def hybrid(run_arguments, tmp_path_factory):
    home = tmp_path_factory.mktemp("hybrid") / "motet-home"
    files = run_arguments[: run_arguments.index("--run-id")]
    done = motet(*files, *MORE, home=home)
    return Finished(home=home, output=done.stdout + done.stderr, result=last_object(done))


def test_the_consortium_hears_nothing_of_an_own_trunk_nor_of_so_few_endpoints(hybrid):
    """Fewer than ten endpoints stand behind each mean here, so none is shown."""
    assert hybrid.result["modality"] == "hybrid"
    assert hybrid.result["consortium"]["test"] == {}


def test_every_partner_has_tables_and_a_report_of_both_kinds(hybrid):
    for name, uplift in hybrid.result["partners"].items():
        assert uplift["n_endpoints"] > 0
        assert uplift["n_regression_endpoints"] > 0
        assert set(uplift["regression_metrics"]["rmse"]["arms"]) == {"single", "federated", "adapted"}
        results = hybrid.directory / "partners" / name / "results"
        assert pq.read_table(results / "regression_endpoints.parquet").num_rows > 0
        page = (results / "report.html").read_text()
        assert "How far a predicted number can be believed" in page
        assert "own trunk beside" in page


def test_a_partners_model_predicts_numbers_with_intervals_beside_classes(hybrid):
    model = "partner-a-qsar@challenger"
    asked = motet("predict", model, "CC(=O)Oc1ccccc1C(=O)O", "no molecule", "--json", home=hybrid.home)
    table = last_object(asked)["predictions"]
    assert set(table) == set(PREDICTIONS.schema.names)
    numbers = [place for place, value in enumerate(table["value"]) if value is not None]
    assert numbers
    for place in numbers:
        assert table["probability"][place] is None
        assert table["value_low"][place] < table["value"][place] < table["value_high"][place]
    asked = motet("predict", model, "CCO", "--embeddings", "--json", home=hybrid.home)
    assert len(last_object(asked)["predictions"]["features"][0]) in {16, 24}


def test_no_value_of_a_partner_is_in_what_others_see(hybrid):
    seen = [hybrid.output, json.dumps(hybrid.result["consortium"])]
    seen += [
        readable(path).decode("latin-1")
        for path in (hybrid.directory / "mailbox").rglob("*")
        if path.is_file()
    ]
    for text in seen:
        assert CANARY_SMILES not in text
        assert CANARY_VALUE not in text
