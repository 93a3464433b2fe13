"""Prefect task of model registration: the consortium's trunk, or a partner's full model in its own registry.

Why: registering the same weights again finds the same version, so Prefect keeps no result.
Runs: on the coordinator, or on a partner. Source: own.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.exchange.identity import secret_file
from tasks.featurization.preparation_rules import StructureRules
from tasks.model_registration.bundle import DataOrigin, Validation, read_parts, write_bundle
from tasks.model_registration.recipe import ModelRecipe
from tasks.model_registration.registration import RegisteredVersion, register
from tasks.model_registration.reliability import CalibrationInputs, reliability_of
from tasks.studies.phases import Phase
from tasks.tracking.runs import TrackedRun


@task(
    name="model-registration",
    task_run_name="{who}/model-registration",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def model_registration(
    who: str,
    *,
    tracked: TrackedRun,
    run_id: str,
    name: str,
    trunk: Path,
    head: Path | None,
    places: Path | None,
    endpoints: Sequence[str],
    regression_endpoints: Sequence[str] = (),
    data: DataOrigin,
    validation: Validation | None,
    bundle: Path,
    rules: StructureRules,
    secret: Path | None = None,
    phase: Phase = "standard",
    calibrated_on: CalibrationInputs | None = None,
) -> RegisteredVersion:
    """Bundle the trunk of a shared model (and a partner's full head), register it, and point the aliases.

    A partner's secret is read from its file, here only: its model holds the permutation that follows from it.
    """
    del who
    recipe = ModelRecipe.of(rules, secret=secret_file(secret) if secret else None)
    arrays, full = read_parts(trunk, head, places)
    known = await asyncio.to_thread(reliability_of, calibrated_on) if calibrated_on else None
    told = partial(write_bundle, bundle, run_id=run_id, data=data, phase=phase)
    write = partial(told, validation=validation, reliability_from=getattr(calibrated_on, "described", None))
    names = {"endpoints": endpoints, "regression_endpoints": regression_endpoints}
    await asyncio.to_thread(write, trunk=arrays, head=full, reliability=known, recipe=recipe, **names)
    return await asyncio.to_thread(
        register, tracked, bundle, name=name, allow_synthetic_champion=data.synthetic
    )
