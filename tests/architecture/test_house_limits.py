"""What the house style fixes in numbers and names, read from the source."""

import ast
import re
import statistics

from tests.architecture.tree import BESIDE, ROOMS, ROOT, named, parsed, project, python_files

MAX_LINES = 400
MAX_FUNCTION_LINES = 50
MEDIAN_FUNCTION_LINES = 10
HEADER_LINES = 8
ANSWERS = ("Why:", "Runs:", "Source:")
NO_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|core|misc|managers?)(_|$)")
PICKLING = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal", "_pickle"}
TORCH_PICKLING = {"load", "save"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(path):
    return [node for node in ast.walk(parsed(path)) if isinstance(node, FUNCTIONS)]


def body_lines(function):
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_no_file_is_longer_than_400_lines():
    lengths = {named(path): len(path.read_text().splitlines()) for path in python_files(*ROOMS, *BESIDE)}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_function_is_longer_than_50_lines_and_half_of_them_have_ten():
    lengths = {
        f"{named(path)}:{function.lineno}": body_lines(function)
        for path in python_files(*ROOMS, *BESIDE)
        for function in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION_LINES


def test_every_module_says_what_it_is_and_its_first_lines_why_where_and_whence():
    silent = {}
    for path in python_files(*ROOMS):
        said = (ast.get_docstring(parsed(path)) or "").splitlines()
        missing = [answer for answer in ANSWERS if answer not in "\n".join(said[:HEADER_LINES])]
        if not said or (missing and not path.name.startswith("__")):
            silent[named(path)] = missing
    assert silent == {}


def test_every_public_name_has_a_docstring():
    silent = []
    for path in python_files(*ROOMS):
        for owner in ast.walk(parsed(path)):
            if not isinstance(owner, (ast.Module, ast.ClassDef)):
                continue
            silent += [
                f"{named(path)}:{node.lineno} {node.name}"
                for node in owner.body
                if isinstance(node, (*FUNCTIONS, ast.ClassDef))
                and not node.name.startswith("_")
                and not _is_private_class(owner)
                and not any(ast.unparse(mark) in {"override", "overload"} for mark in node.decorator_list)
                and not ast.get_docstring(node)
            ]
    assert silent == []


def _is_private_class(owner):
    return isinstance(owner, ast.ClassDef) and owner.name.startswith("_")


def test_every_name_is_a_noun_of_the_field():
    names = {part for path in python_files(*ROOMS, *BESIDE) for part in (path.stem, path.parent.name)}
    assert sorted(name for name in names if NO_NAMES.search(name)) == []


def test_nothing_pickles():
    nodes = [
        (path, node) for path in python_files(*ROOMS, "benchmarks", "docs") for node in ast.walk(parsed(path))
    ]
    assert [f"{named(path)}:{node.lineno}" for path, node in nodes if _pickles(node)] == []


def _pickles(node):
    return _imports_a_pickler(node) or _is_torch_pickling(node) or _allows_pickle(node)


def _imports_a_pickler(node):
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in PICKLING for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLING


def _is_torch_pickling(node):
    if isinstance(node, ast.ImportFrom) and node.module == "torch":
        return any(alias.name in TORCH_PICKLING for alias in node.names)
    return (
        isinstance(node, ast.Attribute)
        and node.attr in TORCH_PICKLING
        and isinstance(node.value, ast.Name)
        and node.value.id == "torch"
    )


def _allows_pickle(node):
    return (
        isinstance(node, ast.keyword)
        and node.arg in {"allow_pickle", "weights_only"}
        and ast.unparse(node.value) != ("False" if node.arg == "allow_pickle" else "True")
    )


def test_the_scan_for_pickles_sees_each_way_to_pickle():
    ways = (
        "import pickle",
        "from joblib import dump",
        "from torch import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
    )
    assert [way for way in ways if not any(map(_pickles, ast.walk(ast.parse(way))))] == []
    assert not any(map(_pickles, ast.walk(ast.parse("np.load(path, allow_pickle=False)"))))


def test_every_ban_of_the_linter_says_what_to_do_instead():
    banned = project()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {"pickle", "cloudpickle", "joblib", "torch.load", "torch.save"} <= set(banned)
    assert all(entry["msg"].endswith(".") for entry in banned.values())


def test_every_room_has_its_folder_of_proof():
    stages = {path.parent.name for path in ROOT.glob("tasks/*/__init__.py")}
    tested = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert stages - tested == set()
