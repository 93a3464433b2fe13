"""What a search may try, how a halving deals out its rounds, and whose trials are whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import SettingsError
from flows.search_names import trial_name, trials_of
from flows.search_space import open_search, parse_space, planned, rungs, schedule

SPACE = {"choices": {"hidden": [8, 16, 32], "dropout": [0.2, 0.4, 0.6]}, "settings": {"rounds": 9}}


@given(n_trials=st.integers(1, 512), rounds=st.integers(1, 1000), eta=st.integers(2, 10))
def test_a_halving_ends_with_all_rounds_and_gives_no_rung_more_trials_than_the_one_before(
    n_trials, rounds, eta
):
    dealt = rungs(n_trials, rounds, eta=eta)
    assert dealt[0][0] == n_trials
    assert dealt[-1][1] == rounds
    assert [n for n, _ in dealt] == sorted((n for n, _ in dealt), reverse=True)
    assert [r for _, r in dealt] == sorted(r for _, r in dealt)
    assert dealt[-1][0] <= eta


def test_nine_trials_of_nine_rounds_are_halved_by_three():
    assert rungs(9, 9, eta=3) == [(9, 1), (3, 3), (1, 9)]


def test_a_grid_tries_every_combination_in_the_tuning_phase_without_a_pooled_arm():
    space = parse_space(SPACE, file="space.yaml")
    ((n_trials, rounds),) = schedule(space, {"partners": 3})
    tried = [settings for _, _, settings in planned(space, {"partners": 3}, space.combinations(), rounds)]
    assert n_trials == len({(one.hidden, one.dropout) for one in tried}) == 9
    assert all(
        (one.phase, one.pooled_arm, one.rounds, one.partners) == ("tune", False, 9, 3) for one in tried
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": {"data": ["a", "b"]}}, "not to be chosen by a search: data"),
        ({"choices": {"no_such_setting": [1]}}, "no_such_setting"),
        ({"choices": {}}, "choices"),
        ({"choices": {"hidden": []}}, "needs values"),
        ({"choices": {"hidden": list(range(1, 600))}}, "at most 512 trials"),
        (
            {"method": "halving", "choices": {"rounds": [1, 2]}, "settings": {}},
            "halving deals out the rounds",
        ),
        ({"method": "guessing"}, "method"),
        ({"code": "import os"}, "code"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_by_name(changed, message):
    with pytest.raises(SettingsError, match=message):
        parse_space(SPACE | changed, file="space.yaml")


def test_a_trial_out_of_bounds_is_refused_before_the_first_one_runs(tmp_path):
    space = parse_space({"choices": {"hidden": [8, 100_000]}}, file="space.yaml")
    with pytest.raises(SettingsError, match="--hidden"):
        open_search(tmp_path, "first", space=space, base={})
    assert not list(tmp_path.iterdir())


def test_a_search_keeps_its_space(tmp_path):
    space = parse_space(SPACE, file="space.yaml")
    assert open_search(tmp_path, "first", space=space, base={}) == open_search(
        tmp_path, "first", space=space, base={}
    )
    with pytest.raises(SettingsError, match="exists with another space"):
        open_search(tmp_path, "first", space=space, base={"seed": 1})


def test_trials_are_told_from_the_runs_and_searches_beside_them():
    mine = [trial_name("find", rung=0, number=1), trial_name("find", rung=1, number=0)]
    assert trials_of("find", [*mine, "find", "find-r0-t1", "other-find-r0-t001", "find-r0-t001-x"]) == mine
    assert trials_of("", mine) == []
