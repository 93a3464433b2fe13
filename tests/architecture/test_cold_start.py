"""The command line answers before anything heavy is imported, and refuses to run among foreign packages."""

import argparse
import json
import subprocess
import sys

import pytest

from flows.cli import EXIT_INSTALLATION, OUR_PACKAGES, foreign_package
from flows.cli.parser import build_parser

HEAVY = {"prefect", "torch", "mlflow", "rdkit", "pyarrow", "pandas", "numpy", "pydantic"}
HELP = """
import contextlib, io, json, sys
from flows.cli import main
texts = {}
for command in json.loads(sys.argv[1]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        main([*command, "--help"])
    texts[" ".join(command)] = text.getvalue()
print(json.dumps({"texts": texts, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def commands(parser=None, names=()):
    """Every command with its own commands: ``["run"], ["import", "wide"], ...``."""
    parser = parser or build_parser()
    yield list(names)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from commands(command, (*names, name))


def python(*arguments, cwd):
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_of_every_command_imports_nothing_heavy(tmp_path):
    done = python("-P", "-c", HELP, json.dumps(list(commands())), cwd=tmp_path)
    told = json.loads(done.stdout)
    assert {"", "run", "import wide", "predict", "up"} <= set(told["texts"])
    assert all(text.startswith(f"usage: motet {name}".rstrip()) for name, text in told["texts"].items())
    assert HEAVY & set(told["modules"]) == set()


def test_here_all_packages_are_ours():
    assert foreign_package() is None


@pytest.mark.parametrize("name", OUR_PACKAGES)
def test_a_foreign_package_of_our_name_is_refused_in_one_line_and_never_run(tmp_path, name):
    # As where Python meets a partner's own tasks.py, or another distribution, before ours.
    (tmp_path / f"{name}.py").write_text("print('the foreign code ran')")
    program = (
        "import sys, flows.cli\n"
        f"sys.modules.pop({name!r}, None)\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.exit(flows.cli.main(['runs', '--json']))"
    )
    done = python("-P", "-c", program, cwd=tmp_path)
    assert done.returncode == EXIT_INSTALLATION
    assert json.loads(done.stdout)["error"] == "ForeignPackage"
    assert done.stderr.splitlines()[0].startswith(f"error: Python takes the package '{name}' from elsewhere")
    assert len(done.stderr.splitlines()) == 2
