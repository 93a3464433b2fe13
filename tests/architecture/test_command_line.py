"""What a person may type, in whatever order."""

import pytest

from flows.cli.parser import parse

CHOSEN = ["--significance", "0.05"]


@pytest.mark.parametrize(
    "words",
    [
        ["acme-qsar", *CHOSEN, "CCO", "CCN"],
        ["acme-qsar", "CCO", "CCN", *CHOSEN],
        ["acme-qsar", "CCO", *CHOSEN, "CCN"],
    ],
)
def test_structures_stand_before_or_behind_options(words):
    told = parse(["predict", *words])
    assert (told.model, told.smiles, told.significance) == ("acme-qsar", ["CCO", "CCN"], 0.05)


@pytest.mark.parametrize(
    "words", [["predict", "acme-qsar", "--significanze", "0.05", "CCO"], ["runs", "CCO"]]
)
def test_what_no_command_knows_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(words)
    assert "unrecognized arguments" in capsys.readouterr().err
