"""The commands of a partner: import, prepare, and ask why."""

import json

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from flows.cli import main
from tests.featurization.partner import SECRET, random_partner

QUORUMS = """
name: small
version: 1
evaluation_folds: [0]
assay_types:
  OTHER: &any
    replicates: median_or_bounds
    thresholds: {rule: given_or_default, default: [6.5]}
    training: {active: 3, inactive: 3}
    evaluation: {active: 1, inactive: 1}
  PANEL: *any
  CATALOG_PANEL: *any
  ADME: *any
  AUX_HTS: *any
  AUX_PL: *any
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A partner with one assay too small, one row in an unknown unit, and a structure that does not parse."""
    home = tmp_path_factory.mktemp("explain")
    partner = random_partner(seed=3, n_structures=30)
    partner.assays.append(("tiny", "OTHER", "high"))
    partner.structures.append(("broken", "C1CC"))
    partner.activities += [
        ("C1", "tiny", "=", 7.0, "p"),
        ("C1", "tiny", "=", 7.0, "mg/l"),
        ("broken", "potency", "=", 7.0, "p"),
    ]
    partner.write(home / "in", suffix="csv")
    (home / "small.yaml").write_text(QUORUMS)
    arguments = [
        "--home",
        str(home / "home"),
        "--directory",
        str(home / "in"),
        "--profile",
        str(home / "small.yaml"),
    ]
    assert main(["prepare", *arguments, "--output", str(home / "prepared"), "--workers", "1"]) == 0
    return home / "prepared"


def asked(capsys, *arguments):
    assert main(["explain", *map(str, arguments), "--json"]) == 0
    *said, answer = capsys.readouterr().out.strip().splitlines()
    return "\n".join(said), json.loads(answer)


def test_all_that_fell_is_counted_by_rule(prepared, capsys):
    said, answer = asked(capsys, prepared)
    files = {file["contract"].split("@")[0]: file for file in answer["report"]["files"]}
    assert files["activities"]["rows"] == {"read": 63, "accepted": 61, "quarantined": 2}
    assert "one_of of unit" in said
    assert "not trained: training quorum" in said


def test_an_endpoint_that_is_not_trained_has_a_reason_with_numbers(prepared, capsys):
    said, answer = asked(capsys, prepared, "--endpoint", "tiny")
    assert answer["trained"] == []
    assert (
        "tiny>=6.5 is not trained: 1 actives and 0 inactives; type OTHER asks for 3 actives and 3 inactives"
        in said
    )


def test_a_part_of_a_name_shows_the_assays_that_have_it(prepared, capsys):
    assert main(["explain", str(prepared), "--endpoint", "POTEN"]) == 2
    assert "assays with such a name: potency" in capsys.readouterr().out


def test_an_endpoint_that_is_trained_says_so(prepared, capsys):
    said, answer = asked(capsys, prepared, "--endpoint", "potency")
    assert [row["endpoint_id"] for row in answer["trained"]] == ["potency>=6.5"]
    assert "potency>=6.5 is trained" in said


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("activities:61", "unit breaks one_of"),
        ("activities:62", "compound_id breaks unknown structure (its structure was set aside"),
        ("structures:30", "smiles breaks parse"),
        ("structures:0", "was not set aside"),
    ],
)
def test_a_row_that_was_set_aside_has_a_reason(prepared, capsys, row, expected):
    said, _ = asked(capsys, prepared, "--row", row)
    assert expected in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--endpoint", "nobody"],
        ["--row", "activities"],
        ["--row", "secrets:1"],
        ["--row", "activities:x"],
        ["--row", "activities:63"],
    ],
)
def test_what_cannot_be_explained_is_a_settings_error(prepared, capsys, arguments):
    assert main(["explain", str(prepared), *arguments]) == 2
    assert "try:" in capsys.readouterr().err


def test_a_directory_that_is_none_and_a_secret_that_is_none_are_refused(tmp_path, capsys):
    assert main(["explain", str(tmp_path / "nothing")]) == 2
    assert main(["prepare", "--output", str(tmp_path / "p"), "--directory", str(tmp_path)]) == 2
    assert "no assays and no activities and no structures" in capsys.readouterr().err
    random_partner(seed=3, n_structures=3).write(tmp_path / "in")
    arguments = ["--directory", str(tmp_path / "in"), "--secret", str(tmp_path / "mistyped")]
    assert main(["prepare", *arguments, "--output", str(tmp_path / "p")]) == 2
    assert not (tmp_path / "mistyped").exists()


def test_melloddy_files_are_imported_and_prepared_by_two_commands(tmp_path, capsys):
    partner = random_partner(seed=4, n_structures=120)
    names = {name: str(number) for number, (name, _) in enumerate(partner.structures)}
    (tmp_path / "T0.csv").write_text(
        "input_assay_id,assay_type,use_in_regression,is_binary,expert_threshold_1,direction\n1,OTHER,True,False,6.5,high\n"
    )
    rows = [f"{names[name]},1,=,{9 - i % 5}" for i, (name, _) in enumerate(partner.structures)]
    (tmp_path / "T1.csv").write_text(
        "\n".join(["input_compound_id,input_assay_id,standard_qualifier,standard_value", *rows, ""])
    )
    pa_csv.write_csv(
        pa.table({"input_compound_id": list(names.values()), "smiles": [s for _, s in partner.structures]}),
        tmp_path / "T2.csv",
    )
    files = [x for t in ("t0", "t1", "t2") for x in (f"--{t}", str(tmp_path / f"{t.upper()}.csv"))]
    assert main(["import", "melloddy", *files, "--output", str(tmp_path / "imported")]) == 0
    assert "motet prepare --directory" in capsys.readouterr().out
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    arguments = [
        "--directory",
        str(tmp_path / "imported"),
        "--secret",
        str(tmp_path / "secret"),
        "--workers",
        "1",
    ]
    assert (
        main(["prepare", *arguments, "--profile", "melloddy", "--output", str(tmp_path / "p"), "--json"]) == 0
    )
    answer = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert answer["profile"]["name"] == "melloddy"
    assert answer["recipe"]["standardization"] == "melloddy-3"
    assert answer["endpoints"]["prepared"] == 2  # at 6.5 and 7; of the sandwich, 6 has 24 inactives only
