"""One sum per minibatch: the secured step is the central step, whatever the partners' sizes, and repeats to the bit."""

import asyncio
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from data_contracts.errors import AgreementViolation
from data_contracts.references import BlobReference
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.minibatch import batch_rows
from tasks.local_training.parameters import initial_head, read_parameters, unflatten, write_parameters
from tasks.rounds.committed import plan_at
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.studies import minibatch_training as study
from tasks.studies.minibatch_training import QSAR_MINIBATCHES, MinibatchParameters
from tasks.studies.qsar_training import shared_vector
from tests.local_training.conftest import write_prepared

SHARED = np.array([0, -1, 1, -1, -1], dtype=np.int32)
N_BATCHES = 4
NORMALIZER = 50.0


@dataclasses.dataclass(frozen=True)
class Minibatches:
    """Four partners of different sizes, and the rounds they play."""

    training: object
    parameters: MinibatchParameters

    def plan(self, reference, *, round_number=1, clip=4.0, parameters=None):
        chosen = parameters or self.parameters
        return self.training.consortium.plan(
            *study.lanes(chosen, clip=clip, ring_bits=32, value_bits=28),
            threshold=3,
            round_number=round_number,
        ).model_copy(update={"study": study.NAME, "model_in": reference, "parameters": chosen.model_dump()})

    def directory(self, name, round_number):
        return self.training.consortium.root / name / f"r{round_number}"

    def secured_round(self, plan):
        """Play one round with real masks; the coordinator's outcome."""
        training, number = self.training, plan.round

        async def partner(name):
            last = self.directory(name, number - 1) if number > 1 else None
            inputs = training.inputs(name, training.blobs.path(plan.model_in), last=last)
            QSAR_MINIBATCHES.accept(plan)
            await QSAR_MINIBATCHES.compute(plan, inputs, self.directory(name, number))
            return await training.consortium.contributor(name).contribute(plan, self.directory(name, number))

        async def everybody():
            board = training.consortium.boards["coordinator"]
            publish_plan(board, plan)
            return await asyncio.gather(
                conduct(board, plan, study=QSAR_MINIBATCHES, inputs=training.blobs),
                *(partner(name) for name in training.consortium.partners),
            )

        outcomes = asyncio.run(everybody())
        assert all(outcome == outcomes[0] for outcome in outcomes)
        return outcomes[0]

    def played(self, n_rounds):
        """Outcomes of the first rounds, and the shared vector after each."""
        reference, parameters, clip = self.training.first(), self.parameters, 4.0
        outcomes, vectors = [], [self.vector(reference)]
        for number in range(1, n_rounds + 1):
            plan = self.plan(reference, round_number=number, clip=clip, parameters=parameters)
            outcomes.append(self.secured_round(plan))
            parameters, reference = parameters.after(outcomes[-1]), BlobReference(**outcomes[-1]["trunk"])
            clip = outcomes[-1]["clip"]
            vectors.append(self.vector(reference))
        return outcomes, vectors

    def vector(self, reference):
        return shared_vector(self.training.blobs, reference, who="coordinator")


@pytest.fixture
def minibatches(make_training):
    names = ["partner-a", "partner-b", "partner-c"]
    training = make_training(n_catalogue=2, places=dict.fromkeys(names, SHARED))
    for number, name in enumerate(training.consortium.partners):
        write_prepared(
            training.consortium.root / name / "prepared", seed=number, n_structures=60 * (number + 1)
        )
    parameters = MinibatchParameters(
        **training.parameters.model_copy(
            update={
                "dropout": 0.0,
                "weight_decay": 0.0,
                "clip_ceiling": 4.0,
                "rounds": 8,
                "evaluate_every": 4,
            }
        ).model_dump(),
        batch_ratio=1 / N_BATCHES,
        loss_normalizer=NORMALIZER,
    )
    return Minibatches(training, parameters)


def _central_step(minibatches, start):
    """Adam's first step along the gradient of all partners' labels, computed in one place by torch."""
    training, parameters = minibatches.training, minibatches.parameters
    shared = unflatten(start.copy(), parameters.layout)
    weights = {name: torch.tensor(array, requires_grad=True) for name, array in shared.items()}
    loss = torch.zeros(())
    for name in training.consortium.partners:
        inputs = training.inputs(name, None)
        dataset = PreparedDataset.open(inputs.dataset)
        head = read_parameters(minibatches.directory(name, 0) / "head.safetensors")
        rows = batch_rows(
            dataset.training_rows((1, 2, 3)), order_seed=inputs.seed("epoch/0"), batch=0, n_batches=N_BATCHES
        )
        bits, starts = dataset.fingerprints_of(rows)
        labels = dataset.labels_of(rows)
        features = torch.relu(
            torch.nn.functional.embedding_bag(
                torch.from_numpy(bits.astype(np.int64)),
                weights["embedding.weight"],
                torch.from_numpy(starts),
                mode="sum",
            )
            + weights["embedding.bias"]
        )
        places = training.places[name]
        full = {key: torch.tensor(array) for key, array in head.items()}
        for endpoint in np.flatnonzero(places >= 0):
            for key, array in full.items():
                array[endpoint] = weights[f"catalogue.{key}"][places[endpoint]]
        logits = (features @ full["weight"].T + full["bias"])[labels.row, labels.endpoint]
        weight = torch.from_numpy(dataset.endpoint_weight)[labels.endpoint]
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(labels.value), weight=weight, reduction="sum"
        )
    (loss / NORMALIZER).backward()
    torch.optim.Adam(list(weights.values()), lr=parameters.learning_rate).step()
    gradient = np.concatenate([tensor.grad.numpy().ravel() for tensor in weights.values()])
    return np.concatenate([weights[name].detach().numpy().ravel() for name in shared]), gradient


def _draw_heads(minibatches):
    """The heads that partners draw from their own seed, for the central computation."""
    training = minibatches.training
    for name in training.consortium.partners:
        directory = minibatches.directory(name, 0)
        directory.mkdir(exist_ok=True)
        head = initial_head(5, training.parameters.hidden, seed=training.inputs(name, None).seed("head"))
        write_parameters(directory / "head.safetensors", head)


def test_the_secured_step_is_the_central_step_on_all_labels_together(minibatches):
    _draw_heads(minibatches)
    _, (before, after) = minibatches.played(1)
    central, gradient = _central_step(minibatches, before)
    quantum = 4.0 / (2**27 - 1)
    felt = (
        np.abs(gradient) > 1000 * quantum
    )  # Adam's first step is the sign of a gradient: of none, of rounding
    assert felt.sum() > 500
    assert np.abs(after - before)[felt].max() > 0.5 * minibatches.parameters.learning_rate
    np.testing.assert_allclose(after[felt], central[felt], atol=0.002 * minibatches.parameters.learning_rate)
    untouched = gradient == 0
    np.testing.assert_array_equal(after[untouched], before[untouched])


@pytest.mark.parametrize("n_rows", [3, 50, 997])
def test_every_partner_cuts_an_epoch_into_as_many_minibatches_and_sees_each_molecule_once(n_rows):
    rows = np.arange(n_rows) * 2
    parts = [batch_rows(rows, order_seed=7, batch=number, n_batches=50) for number in range(50)]
    assert sorted(np.concatenate(parts)) == list(rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = batch_rows(rows, order_seed=8, batch=0, n_batches=50)
    assert n_rows < 50 or list(again) != list(parts[0])


def test_rounds_are_scored_in_the_plans_rhythm_and_heads_move_in_every_one(minibatches):
    outcomes, vectors = minibatches.played(5)
    scored = [number for number, one in enumerate(outcomes, 1) if "validation/auprc" in one["metrics"]]
    assert scored == [5]
    heads = [
        read_parameters(minibatches.directory("partner-d", number) / "head.safetensors")["weight"]
        for number in range(1, 6)
    ]
    assert all((one != other).any() for one, other in itertools.pairwise(heads))
    assert all((one != other).any() for one, other in itertools.pairwise(vectors))


def test_a_head_that_goes_on_from_files_is_the_head_that_never_stopped(minibatches):
    """What a killed partner does again, from its files alone, is the same to the bit."""
    minibatches.played(3)
    training, name = minibatches.training, "partner-b"
    board = training.consortium.boards["coordinator"]
    plan = plan_at(board, 3, 0)
    inputs = training.inputs(name, training.blobs.path(plan.model_in), last=minibatches.directory(name, 2))
    again = minibatches.directory(name, 99)
    again.mkdir()
    asyncio.run(QSAR_MINIBATCHES.compute(plan, inputs, again))
    for file in ("gradient.npy", "head.safetensors", "optimizer.safetensors"):
        assert (again / file).read_bytes() == (minibatches.directory(name, 3) / file).read_bytes(), file


def test_a_plan_with_local_steps_lanes_or_a_ratio_out_of_bounds_is_refused(minibatches):
    plan = minibatches.plan(minibatches.training.first())
    wrong = plan.lanes[0].model_copy(update={"name": "update"})
    with pytest.raises(AgreementViolation, match="lanes"):
        QSAR_MINIBATCHES.accept(plan.model_copy(update={"lanes": (wrong, plan.lanes[1])}))
    with pytest.raises(AgreementViolation, match="batch_ratio"):
        QSAR_MINIBATCHES.accept(
            plan.model_copy(update={"parameters": plan.parameters | {"batch_ratio": 2.0}})
        )
