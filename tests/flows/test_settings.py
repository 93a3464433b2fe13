"""Settings that belong together, and what an algorithm brings by itself."""

import pytest

from data_contracts.errors import SettingsError
from flows.federated_training import training_parameters
from flows.settings import settings_from


def test_one_sum_per_minibatch_brings_melloddys_rhythm_and_nearly_exact_gradients():
    settings = settings_from({"algorithm": "fedsgd"})
    assert (settings.rounds, settings.evaluate_every) == (1000, 50)
    assert (settings.ring_bits, settings.value_bits) == (32, 24)
    parameters = training_parameters(settings)
    assert (parameters.batches_per_epoch, parameters.epochs) == (50, 20)
    assert [parameters.place_of(number) for number in (1, 50, 51)] == [(0, 0), (0, 49), (1, 0)]
    assert [number for number in range(1, 152) if parameters.measures(number)] == [51, 101, 151]


def test_what_a_user_gives_goes_before_what_the_algorithm_brings():
    settings = settings_from(
        {"algorithm": "fedsgd", "batch_ratio": 0.1, "rounds": 7, "ring_bits": 16, "value_bits": 12}
    )
    assert (settings.rounds, settings.evaluate_every, settings.ring_bits) == (7, 10, 16)


def test_the_default_keeps_its_meaning():
    settings = settings_from({})
    parameters = training_parameters(settings)
    assert (settings.algorithm, settings.phase, parameters.training_folds) == (
        "fedavg",
        "standard",
        (1, 2, 3),
    )
    assert parameters.epochs == settings.rounds * settings.local_epochs
    assert not parameters.measures(1)
    assert parameters.measures(2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "fedsgd", "proximal": 0.1}, "--proximal"),
        ({"algorithm": "fedsgd", "server_optimizer": "yogi"}, "--server-optimizer"),
        ({"algorithm": "fedsgd", "batch_ratio": 0}, "--batch-ratio"),
        ({"algorithm": "gossip"}, "--algorithm"),
        ({"phase": "report"}, "--rounds-from"),
        ({"phase": "final"}, "--rounds-from"),
        ({"phase": "report", "rounds_from": "tuned", "patience": 3}, "--patience"),
        ({"warm_start": "../../etc"}, "--warm-start"),
        ({"rounds_from": "../x"}, "--rounds-from"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(given, message):
    with pytest.raises(SettingsError, match=message):
        settings_from(given)
