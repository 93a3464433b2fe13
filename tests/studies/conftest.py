"""Partners with prepared data over a directory mailbox; training runs in this process."""

import asyncio
import dataclasses
import io

import numpy as np
import pytest

from tasks.local_training.shared_model import initial_shared
from tasks.local_training.training import train
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.studies import qsar_training as training_study
from tasks.studies.catalogue import Catalogue, publish_catalogue
from tasks.studies.qsar_training import QSAR_TRAINING, PartnerInputs
from tasks.studies.training_parameters import TrainingParameters
from tests.local_training.conftest import HIDDEN, write_prepared
from tests.rounds.conftest import make_consortium  # noqa: F401 - a fixture

N_BITS = 32_768
PARAMETERS = TrainingParameters(
    hidden=HIDDEN,
    n_catalogue=0,
    rounds=2,
    local_epochs=2,
    batch_size=16,
    learning_rate=0.01,
    dropout=0.2,
    weight_decay=1e-6,
    server_learning_rate=1.0,
    clip_ceiling=0.25,
)


def existing(path):
    return path if path.exists() else None


async def run_job(job):
    return train(job)


@dataclasses.dataclass(frozen=True)
class Training:
    """Three partners that may train together, with or without secure aggregation."""

    consortium: object
    parameters: TrainingParameters
    places: dict

    def inputs(self, name, trunk, *, last=None):
        place = self.consortium.root / name
        with io.BytesIO() as buffer:
            np.save(buffer, self.places[name], allow_pickle=False)
            (place / "places.npy").write_bytes(buffer.getvalue())
        number = self.consortium.partners.index(name)
        return PartnerInputs(
            name=name,
            dataset=place / "prepared",
            trunk=trunk,
            places=place / "places.npy",
            head=last and last / "head.safetensors",
            optimizer=last and existing(last / "optimizer.safetensors"),
            seed=lambda label: 1000 * number + len(label),
            run_job=run_job,
        )

    def plan(self, reference, *, round_number=1, clip=0.25, ring_bits=16, value_bits=12):
        lanes = training_study.lanes(self.parameters, clip=clip, ring_bits=ring_bits, value_bits=value_bits)
        return self.consortium.plan(*lanes, threshold=3, round_number=round_number).model_copy(
            update={
                "study": "qsar-training",
                "model_in": reference,
                "parameters": self.parameters.model_dump(),
            }
        )

    @property
    def blobs(self):
        return self.consortium.boards["coordinator"].mailbox.blobs

    def first(self):
        parameters = self.parameters
        vector = initial_shared(
            HIDDEN, n_catalogue=parameters.n_catalogue, seed=1, n_layers=parameters.layers
        )
        return training_study.publish_shared(self.blobs, vector, parameters=self.parameters)

    def secured_round(self, plan):
        """Play one round with real masks; the coordinator's outcome."""

        async def partner(name):
            inputs = self.inputs(name, self.blobs.path(plan.model_in))
            directory = self.consortium.root / name / f"r{plan.round}"
            QSAR_TRAINING.accept(plan)
            await QSAR_TRAINING.compute(plan, inputs, directory)
            return await self.consortium.contributor(name).contribute(plan, directory)

        async def everybody():
            published = publish_plan(self.consortium.boards["coordinator"], plan)
            assert published == plan
            return await asyncio.gather(
                conduct(self.consortium.boards["coordinator"], plan, study=QSAR_TRAINING, inputs=self.blobs),
                *(partner(name) for name in self.consortium.partners),
            )

        outcomes = asyncio.run(everybody())
        assert all(outcome == outcomes[0] for outcome in outcomes)
        return outcomes[0]

    def updates(self, plan):
        """What each partner sent, in clear."""
        return [
            np.load(self.consortium.root / name / f"r{plan.round}" / "update.npy")
            for name in self.consortium.partners
        ]


@pytest.fixture
def make_training(make_consortium):  # noqa: F811 - the fixture
    def make(*, n_catalogue=0, places=None):
        consortium = make_consortium(4)
        for number, name in enumerate(consortium.partners):
            write_prepared(consortium.root / name / "prepared", seed=number)
        private = np.full(5, -1, dtype=np.int32)
        chosen = dict.fromkeys(consortium.partners, private) | (places or {})
        parameters = PARAMETERS
        if n_catalogue:
            trainers = [sum(row in one for one in chosen.values()) for row in range(n_catalogue)]
            reference = publish_catalogue(
                consortium.boards["coordinator"].mailbox.blobs,
                Catalogue(
                    endpoints=tuple(f"A{row}>=6.5" for row in range(n_catalogue)), partners=tuple(trainers)
                ),
            )
            parameters = parameters.model_copy(
                update={
                    "n_catalogue": n_catalogue,
                    "catalogue_sha256": reference.sha256,
                    "catalogue_bytes": reference.bytes,
                }
            )
        return Training(consortium=consortium, parameters=parameters, places=chosen)

    return make
