"""What a person may type, in whatever order."""

from pathlib import Path

import pytest

from flows.cli import EXIT_SYSTEM, main
from flows.cli.parser import DEFAULT_HOME, parse

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


@pytest.mark.parametrize("act", [("mailbox", "collect", "--keep-days", "3"), ("requests", "show", "first")])
def test_what_was_said_before_an_act_holds_for_the_act(act):
    command, *rest = act
    told = parse([command, "--home", "elsewhere", "--json", *rest])
    assert (told.home, told.json) == (Path("elsewhere"), True)
    assert parse([command, *rest, "--home", "elsewhere"]).home == Path("elsewhere")
    assert (parse([command, *rest]).home, parse([command, *rest]).json) == (DEFAULT_HOME, False)


def test_a_file_that_is_not_there_is_named_as_it_was_typed(tmp_path, capsys):
    assert main(["init", "coordinator", "--name", "coordinator", "--home", str(tmp_path / "site")]) == 0
    missing = str(tmp_path / "no-such.json")
    assert main(["roster", "make", missing, "--home", str(tmp_path / "site")]) == EXIT_SYSTEM
    assert f"'{missing}': No such file or directory" in capsys.readouterr().err
