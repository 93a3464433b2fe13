"""A device and a precision change how fast a network is computed, and nothing that another party could notice."""

import asyncio

import numpy as np
import pytest
import torch

from data_contracts.errors import SettingsError
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.jobs import Centralised, LocalSteps, Machine, TrainingSettings
from tasks.local_training.learner import Learner
from tasks.local_training.parameters import initial_head, initial_trunk, read_parameters, write_parameters
from tasks.local_training.place import CPU, Place, place_of
from tasks.local_training.scoring import predict
from tasks.local_training.training import train
from tasks.local_training.worker_process import TrainingProcess
from tests.local_training.conftest import write_prepared

HAS_CUDA = torch.cuda.is_available()
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device: torch sees none here")
    ),
]
CLOSE = 2e-5 if not HAS_CUDA else 2e-4


def _trained(dataset, place, *, work):
    rows = dataset.training_rows((1, 2, 3))
    learner = Learner(
        dataset,
        rows,
        trunk=initial_trunk(6, seed=3, n_layers=1),
        head=initial_head(dataset.n_endpoints, 6, seed=4),
        settings=TrainingSettings(dropout=0, learning_rate=0.01, proximal=0.1),
        generator=torch.Generator().manual_seed(1),
        loss_scale=0.01,
        work=work,
        place=place,
    )
    losses = [learner.step(batch)[0] for batch in np.array_split(rows, 9)]
    trunk = initial_trunk(6, seed=3, n_layers=1)
    learner.write_trunk(trunk)
    return losses, trunk, learner


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("work", ["dense", "pairs"])
def test_training_on_a_device_follows_training_on_the_cpu(prepared, device, work):
    dataset = PreparedDataset.open(prepared)
    expected_losses, expected_trunk, expected = _trained(dataset, CPU, work=work)
    losses, trunk, learner = _trained(dataset, place_of(Machine(device=device)), work=work)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for found, wanted in (
        (trunk, expected_trunk),
        (learner.head_arrays(), expected.head_arrays()),
        (learner.optimizer_state(), expected.optimizer_state()),
    ):
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            assert array.dtype == np.float32, name
            np.testing.assert_allclose(array, wanted[name], atol=CLOSE, err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
def test_scores_of_a_device_are_those_of_the_cpu(prepared, device):
    dataset = PreparedDataset.open(prepared)
    trunk, head = initial_trunk(6, seed=3, n_layers=1), initial_head(dataset.n_endpoints, 6, seed=4)
    found, expected = (
        predict(dataset, (0, 4), trunk=trunk, head=head, place=place)
        for place in (place_of(Machine(device=device)), CPU)
    )
    np.testing.assert_array_equal(found.structure, expected.structure)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_an_optimizer_state_moves_between_devices(prepared, device):
    dataset = PreparedDataset.open(prepared)
    _, _, learner = _trained(dataset, CPU, work="pairs")
    state = learner.optimizer_state()
    _, _, other = _trained(dataset, place_of(Machine(device=device)), work="dense")
    taken_up = other.resume(state).optimizer_state()
    for name, array in state.items():
        np.testing.assert_array_equal(array, taken_up[name], err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_costs_less_than_three_thousandths_of_auprc_and_repeats_to_the_bit(tmp_path, device):
    data = write_prepared(tmp_path / "data", seed=1, n_structures=2500, n_endpoints=8, n_bits=60)
    write_parameters(tmp_path / "trunk", initial_trunk(32, seed=1, n_layers=1))

    def quality(name, precision):
        job = Centralised(
            kind="alone",
            datasets=(data,),
            trunk=tmp_path / "trunk",
            head_seeds=(2,),
            seed=3,
            max_epochs=12,
            settings=TrainingSettings(batch_size=64, dropout=0.1, learning_rate=3e-3),
            output=tmp_path / name,
        )
        result = train(job, machine=Machine(device=device, precision=precision))
        return max(epoch.validation.auprc for epoch in result.history), read_parameters(result.trunk)

    whole, _ = quality("float32", "float32")
    reduced, trunk = quality("bfloat16", "bfloat16")
    again, repeated = quality("again", "bfloat16")
    assert whole > 0.8
    assert reduced != whole, "nothing was reduced"
    assert reduced == pytest.approx(whole, abs=0.003)
    assert again == reduced
    for name, array in trunk.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, repeated[name], err_msg=name)


def test_dropout_draws_from_a_generator_of_its_own_device():
    generator = torch.Generator().manual_seed(5)
    assert CPU.generator(generator) is generator
    if HAS_CUDA:
        other = Place(torch.device("cuda")).generator(generator)
        assert (other.device.type, other.initial_seed()) == ("cuda", 5)


def test_auto_takes_what_there_is():
    assert place_of(Machine()).device.type == ("cuda" if HAS_CUDA else "cpu")
    assert place_of(Machine(device="cpu", precision="bfloat16")) == Place(torch.device("cpu"), reduced=True)


@pytest.mark.skipif(HAS_CUDA, reason="a CUDA device is here")
def test_a_device_that_is_not_there_is_named_and_nothing_is_done(prepared, tmp_path):
    job = LocalSteps(dataset=prepared, trunk=tmp_path / "trunk", head_seed=2, seed=3, output=tmp_path / "out")
    with pytest.raises(SettingsError, match="'cuda' was asked for, but torch sees no CUDA device"):
        train(job, machine=Machine(device="cuda"))
    assert not job.output.exists()


def test_the_children_compute_as_the_machine_says(prepared, tmp_path):
    write_parameters(tmp_path / "trunk", initial_trunk(6, seed=1, n_layers=1))
    reduced = Machine(device="cpu", precision="bfloat16")

    def job(name):
        return LocalSteps(
            dataset=prepared, trunk=tmp_path / "trunk", head_seed=2, seed=3, output=tmp_path / name
        )

    async def in_a_child():
        async with TrainingProcess(machine=reduced) as process:
            return await process.run(job("child"), timeout_seconds=120)

    found = asyncio.run(in_a_child()).update.read_bytes()
    assert found == train(job("here"), machine=reduced).update.read_bytes()
    assert found != train(job("whole")).update.read_bytes()
