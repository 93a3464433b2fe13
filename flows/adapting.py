"""After the last round: a partner grows a trunk of its own beside the one that the consortium chose.

Why: what its chemistry needs beyond the common features stays with it, and nobody learns that it exists.
Runs: on the partner. Source: own; docs/decisions/0029.
"""

from pathlib import Path

from data_contracts.plan import RoundPlan
from flows.sites import Site
from tasks.local_training.jobs import Adapt
from tasks.studies import qsar_training as training_study
from tasks.studies.evaluation import ADAPTED, Arm
from tasks.studies.qsar_training import RunJob
from tasks.studies.steps import train_without_federation


async def adapt(
    site: Site, prepared: Path, federated: Arm, *, width: int, made_by: RoundPlan | None, run_job: RunJob
) -> Arm:
    """Grow the trunk once, by the settings of the round that made the chosen model.

    Args:
        site: The partner's directory and keys.
        prepared: Its prepared data.
        federated: The chosen model with the partner's head.
        width: Features of its own.
        made_by: Plan of that round.
        run_job: Runs a training job in a child process.

    Returns:
        The wider model.
    """
    output = site.root / ADAPTED
    assert made_by is not None  # noqa: S101 - the partner took part in that round
    parameters = training_study.parameters_of(made_by)

    def make_job() -> Adapt:
        return Adapt(
            dataset=prepared,
            modality=parameters.modality,
            trunk=federated.trunk,
            head=federated.head,
            places=federated.places,
            width=width,
            seed=site.seed(ADAPTED),
            settings=parameters.settings,
            output=output,
        )

    await train_without_federation(site.name, ADAPTED, make_job=make_job, output=output, run_job=run_job)
    return Arm(trunk=output / "trunk.safetensors", head=output / "head-0.safetensors")
