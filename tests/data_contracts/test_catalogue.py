"""The declared contracts, their lock files, and the class of every change."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import catalogue
from data_contracts.catalogue import (
    ACTIVITIES,
    ASSAYS,
    CONTRACTS,
    LOCK_DIRECTORY,
    PREDICTIONS,
    lock_problems,
    write_lock,
)
from data_contracts.compatibility import Level, differences, level_of, version_problem
from data_contracts.contract import Contract, Field
from data_contracts.errors import ContractViolation
from data_contracts.rules import Between, BetweenWhen, Finite, LengthBetween, OneOf, Rule
from data_contracts.validation import require_valid
from tests.data_contracts.tables import as_table


def test_every_contract_equals_its_lock_file_or_its_version_was_raised_as_the_change_demands():
    assert lock_problems(LOCK_DIRECTORY) == []


def test_every_lock_file_of_the_current_version_is_the_contract_to_the_byte():
    assert sorted(path.stem for path in LOCK_DIRECTORY.iterdir()) == sorted(CONTRACTS)
    for name, contract in CONTRACTS.items():
        locked = (LOCK_DIRECTORY / f"{name}.json").read_bytes()
        if json.loads(locked)["version"] == contract.version:
            assert locked == contract.to_bytes()


def test_predictions_say_why_a_structure_has_no_probability():
    rows = [
        {"smiles": "C", "endpoint": "E", "probability": 0.5, "valid": True, "reason": None},
        {"smiles": "?", "endpoint": "E", "probability": None, "valid": False, "reason": "parse"},
    ]
    batches = list(require_valid(as_table(rows, PREDICTIONS).to_batches(), PREDICTIONS, source="p"))
    assert batches[0].num_rows == 2
    for change in ({"valid": False}, {"probability": 1.5}, {"value": float("inf")}):
        with pytest.raises(ContractViolation, match="break rule"):
            list(
                require_valid(as_table([rows[0] | change], PREDICTIONS).to_batches(), PREDICTIONS, source="p")
            )


def test_a_conditional_rule_is_relaxed_by_fewer_conditions_and_tightened_by_more():
    old = {**ACTIVITIES.to_json()}
    index = next(i for i, rule in enumerate(old["rules"]) if rule["rule"] == "between_when")
    for among, level in ((["M"], Level.COMPATIBLE), ([*old["rules"][index]["among"], "p"], Level.BREAKING)):
        new = copy.deepcopy(old)
        new["rules"][index]["among"] = among
        assert level_of(differences(old, new)) == level


def changed(**changes):
    """Return the JSON of ``assays`` with changes applied to its parts."""
    new = copy.deepcopy(ASSAYS.to_json())
    for part, change in changes.items():
        change(new[part]) if callable(change) else new.update({part: change})
    return new


@pytest.mark.parametrize(
    ("new", "level"),
    [
        (changed(), Level.NONE),
        (changed(description="new words"), Level.DOCUMENTATION),
        (changed(fields=lambda f: f[0].update(description="new words")), Level.DOCUMENTATION),
        (changed(fields=lambda f: f[0].update(nullable=True)), Level.COMPATIBLE),
        (changed(fields=lambda f: f.append(dict(f[-1], name="threshold_6"))), Level.COMPATIBLE),
        (changed(fields=lambda f: f.reverse()), Level.COMPATIBLE),
        (changed(rules=lambda r: r.pop()), Level.COMPATIBLE),
        (changed(rules=lambda r: r[2]["values"].append("CELL")), Level.COMPATIBLE),
        (changed(rules=lambda r: r[0].update(maximum=300)), Level.COMPATIBLE),
        (changed(key=[]), Level.COMPATIBLE),
        (changed(key=["assay_id", "direction"]), Level.BREAKING),
        (changed(fields=lambda f: f.pop()), Level.BREAKING),
        (changed(fields=lambda f: f[0].update(name="id")), Level.BREAKING),
        (changed(fields=lambda f: f[0].update(type="int64")), Level.BREAKING),
        (changed(fields=lambda f: f[-1].update(unit="M")), Level.BREAKING),
        (changed(fields=lambda f: f[-1].update(optional=False)), Level.BREAKING),
        (changed(fields=lambda f: f.append(dict(f[0], name="site"))), Level.BREAKING),
        (changed(rules=lambda r: r[2]["values"].pop()), Level.BREAKING),
        (changed(rules=lambda r: r[0].update(maximum=100)), Level.BREAKING),
        (changed(rules=lambda r: r.append({"rule": "finite", "column": "direction"})), Level.BREAKING),
        (changed(future_part=1), Level.BREAKING),
    ],
)
def test_the_class_of_a_change_is_what_it_costs_old_tables(new, level):
    assert level_of(differences(ASSAYS.to_json(), new)) == level
    demanded = {
        Level.NONE: "1.1.0",
        Level.DOCUMENTATION: "1.1.1",
        Level.COMPATIBLE: "1.2.0",
        Level.BREAKING: "2.0.0",
    }
    for version in demanded.values():
        enough = version >= demanded[level]
        assert (version_problem(ASSAYS.to_json(), new | {"version": version}) is None) == enough
    assert version_problem(ASSAYS.to_json(), new | {"version": "0.9.0"}) is not None


NUMBER = st.sampled_from([None, 0.0, 1.0, 2.0])
WORDS = st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(tuple)
COLUMNS = st.sampled_from(["n", "m"])


@st.composite
def contracts(draw):
    """Draw small contracts that often differ in one thing only."""
    rules: list[Rule] = []
    if draw(st.booleans()):
        rules.append(Between("n", draw(NUMBER), draw(NUMBER)))
    if draw(st.booleans()):
        rules.append(Finite("n"))
    if draw(st.booleans()):
        rules.append(BetweenWhen("n", draw(NUMBER), draw(NUMBER), when="t", among=draw(WORDS)))
    if draw(st.booleans()):
        rules.append(OneOf("t", draw(WORDS)))
    fields = [
        Field("n", "float64", nullable=draw(st.booleans())),
        Field("t", "string", nullable=draw(st.booleans())),
    ]
    if draw(st.booleans()):
        optional = draw(st.booleans())
        fields.append(Field("e", "string", nullable=optional or draw(st.booleans()), optional=optional))
        if draw(st.booleans()):
            rules.append(LengthBetween("e", draw(st.integers(0, 1)), draw(st.integers(1, 2))))
    key = draw(st.sampled_from([(), ("t",)]))
    return Contract(name="c", version="1.0.0", fields=tuple(fields), rules=tuple(rules), key=key)


VALUES = {
    "n": st.sampled_from([None, 0.0, 1.0, 2.0, float("nan")]),
    "t": st.sampled_from([None, "a", "b", "c"]),
    "e": st.sampled_from([None, "", "x", "xx"]),
}


def keeps(rows, contract, names):
    table = as_table(rows, Contract(name="r", version="1.0.0", fields=tuple(f for f in names)))
    try:
        list(require_valid(table.to_batches(), contract, source="t"))
    except ContractViolation:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(old=contracts(), new=contracts(), data=st.data())
def test_a_table_that_keeps_the_old_contract_keeps_every_compatible_new_one(old, new, data):
    if level_of(differences(old.to_json(), new.to_json())) == Level.BREAKING:
        return
    row = st.fixed_dictionaries({field.name: VALUES[field.name] for field in old.fields})
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    if keeps(rows, old, old.fields):
        assert keeps(rows, new, old.fields)


def test_the_lock_is_not_rewritten_over_an_unannounced_change(tmp_path, monkeypatch):
    assert write_lock(tmp_path) == []
    assert lock_problems(tmp_path) == []
    left = tuple(rule for rule in ASSAYS.rules if ASSAYS.fields[-1].name not in rule.columns)
    silent = Contract(ASSAYS.name, ASSAYS.version, ASSAYS.fields[:-1], left, ASSAYS.key, "new words")
    monkeypatch.setitem(catalogue.CONTRACTS, "assays", silent)
    assert (
        "catalogue_assay_id (removed) is breaking and demands a major version above 1.1.0"
        in write_lock(tmp_path)[0]
    )
    assert (tmp_path / "assays.json").read_bytes() == ASSAYS.to_bytes()
    announced = Contract(ASSAYS.name, "2.0.0", silent.fields, silent.rules, silent.key, "new words")
    monkeypatch.setitem(catalogue.CONTRACTS, "assays", announced)
    assert write_lock(tmp_path) == []
    (tmp_path / "assays.json").unlink()
    assert lock_problems(tmp_path) == ["assays@2.0.0 has no lock file"]


def test_the_documented_command_checks_the_lock(capsys):
    assert catalogue.main([]) == 0
    assert capsys.readouterr().err == ""
