"""From a model's directory to a version in the registry: once per run and weights.

Why: a resumed run must find its version again, and what is registered must hold no path, user or secret of the
machine that made it. Runs: on the coordinator for the trunk, on a partner for its own model.
Source: own; MLflow 3.17 models-from-code, saved apart and uploaded, because ``log_model`` writes paths.
"""

import importlib.metadata
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.canonical_json import digest_of
from data_contracts.errors import SettingsError
from tasks.model_registration import scoring
from tasks.model_registration.bundle import ModelCard, read_card
from tasks.model_registration.champion import Candidate, Decision, decide
from tasks.tracking.runs import TrackedRun
from tasks.tracking.store import refusals

CONSORTIUM_MODEL = "motet-trunk"
CHALLENGER = "challenger"
CHAMPION = "champion"
SYNTHETIC_BANNER = (
    "**Simulated assays.** This model was trained on invented activities of real molecules: it shows how a "
    "consortium works and must not be used for any decision."
)
REQUIREMENTS = ("numpy", "pandas", "rdkit", "safetensors")
PHASES = {
    "tune": "trained on folds 1 to 3, chosen on fold 4.",
    "report": "trained on folds 1 to 4, measured on fold 0; its final model serves.",
    "final": "trained on all folds, for use; its figure is that of its report.",
}
EXAMPLE_SMILES = "CC(=O)Oc1ccccc1C(=O)O"  # aspirin


def partner_model(partner: str) -> str:
    """Name of a partner's registered model."""
    return f"{partner}-qsar"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry.

    Attributes:
        name: Registered model.
        version: Its number.
        model_id: MLflow's id of the logged model.
        aliases: Aliases that point to this version now.
        reason: Why it became champion, or did not.
        files: The model as MLflow stores it; an MLflow model directory.
    """

    name: str
    version: int
    model_id: str
    aliases: tuple[str, ...]
    reason: str
    files: Path

    @property
    def uri(self) -> str:
        """Address for ``mlflow.pyfunc.load_model``."""
        return f"models:/{self.name}/{self.version}"

    def url(self, server: str) -> str:
        """Address of the version's page, given that of an MLflow server."""
        return f"{server.rstrip('/')}/#/models/{self.name}/versions/{self.version}"


def register(
    run: TrackedRun, bundle: Path, *, name: str, allow_synthetic_champion: bool = False
) -> RegisteredVersion:
    """Register a model's directory, or find the version of the same run and weights.

    Args:
        run: The party's MLflow run.
        bundle: Directory made by ``write_bundle``.
        name: ``motet-trunk`` or ``<partner>-qsar``.
        allow_synthetic_champion: True in a demonstration registry only.

    Returns:
        The version. The newest one is ``challenger``; it is ``champion`` too if ``champion.decide`` says so.

    Raises:
        SettingsError: If a trunk is registered under a partner's name or the reverse.
        UpdateMismatch: If the directory holds no readable card.
        WorkFailed: If MLflow refuses.
    """
    card = read_card(bundle)
    if (card.kind == "trunk") != (name == CONSORTIUM_MODEL):
        raise SettingsError(
            f"a model of kind '{card.kind}' cannot be registered as '{name}'; "
            f"expected '{CONSORTIUM_MODEL}' for a trunk, '<partner>-qsar' for a partner's model"
        )
    with refusals(f"register '{name}'"):
        _open_name(run, name=name, card=card)
        version = _find(run, name=name, card=card) or _create(run, bundle, name=name, card=card)
        decision = _point_aliases(run, version, card=card, allow_synthetic_champion=allow_synthetic_champion)
        return _describe(run, name=name, number=int(version.version), reason=decision.reason)


def _open_name(run: TrackedRun, *, name: str, card: ModelCard) -> None:
    client = run.store.client
    if client.search_registered_models(f"name = '{name}'"):
        return
    what = "Shared trunk of a motet consortium: SMILES to features."
    if card.kind == "qsar":
        what = "A partner's own model, trunk and private head: SMILES to probabilities and values."
    client.create_registered_model(
        name, description=f"{SYNTHETIC_BANNER}\n\n{what}" if card.data.synthetic else what
    )


def _find(run: TrackedRun, *, name: str, card: ModelCard) -> Any:
    found = run.store.client.search_model_versions(
        f"name = '{name}' and tag.`motet.run_id` = '{card.run_id}' "
        f"and tag.`motet.weights_sha256` = '{card.weights_sha256}'"
    )
    return min(found, key=lambda version: int(version.version), default=None)


def _create(run: TrackedRun, bundle: Path, *, name: str, card: ModelCard) -> Any:
    from mlflow.entities import LoggedModelOutput

    client = run.store.client
    tags = _tags(card)
    for remains in _abandoned(run, card=card):
        client.delete_logged_model(remains.model_id)
    logged = client.create_logged_model(
        run.experiment, name=name, source_run_id=run.mlflow_run, tags=tags, model_type=card.kind
    )
    client.log_outputs(run.mlflow_run, [LoggedModelOutput(logged.model_id, step=0)])
    with tempfile.TemporaryDirectory() as scratch:
        saved = save_mlflow_model(Path(scratch), bundle, card=card, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, "READY")
    version = client.create_model_version(
        name,
        logged.artifact_location,
        run_id=run.mlflow_run,
        tags={**tags, "motet.model_id": logged.model_id},
        description=_description(card),
    )
    pointer = json.dumps([{"name": name, "version": int(version.version)}])
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": pointer})
    return version


def _abandoned(run: TrackedRun, *, card: ModelCard) -> list[Any]:
    """Find what an attempt left that was killed before it made a version."""
    found = run.store.client.search_logged_models(
        [run.experiment],
        filter_string=f"tags.`motet.run_id` = '{card.run_id}' "
        f"AND tags.`motet.weights_sha256` = '{card.weights_sha256}'",
    )
    return list(found)


def _tags(card: ModelCard) -> dict[str, str]:
    return {
        "motet.run_id": card.run_id,
        "motet.kind": card.kind,
        "motet.phase": card.phase,
        "motet.weights_sha256": card.weights_sha256,
        "motet.card_sha256": digest_of(card.model_dump(mode="json")),
        "motet.card_validation": "" if card.validation is None else card.validation.model_dump_json(),
        "motet.card_data": card.data.model_dump_json(),
        "data.synthetic": str(card.data.synthetic).lower(),
    }


def _description(card: ModelCard) -> str:
    lines = [SYNTHETIC_BANNER] if card.data.synthetic else []
    if card.data.control:
        lines.append(f"**Control: {card.data.control}.** It must show no uplift.")
    lines.append(
        f"Run {card.run_id}; {len(card.endpoints) + len(card.regression_endpoints)} endpoints, {card.hidden} hidden units."
    )
    if card.phase != "standard":
        lines.append(f"Phase {card.phase}: {PHASES[card.phase]}")
    if card.reliability_from:
        lines.append(f"Reliability was learnt on {card.reliability_from}.")
    return "\n\n".join(lines)


def save_mlflow_model(scratch: Path, bundle: Path, *, card: ModelCard, model_id: str | None) -> Path:
    """Save an MLflow model with neutral names and relative paths only.

    Args:
        scratch: An empty directory.
        bundle: Directory made by ``write_bundle``.
        card: Its card.
        model_id: MLflow's id of the logged model; None for a model that belongs to no store.

    Returns:
        The MLflow model directory.
    """
    shutil.copyfile(Path(scoring.__file__).with_name("scoring_model.py"), scratch / "scoring_model.py")
    with warnings.catch_warnings():
        # MLflow would like type hints that it then checks slowly, and compares columns in pandas' old way.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow.pyfunc
        from mlflow.models import Model

        model = Model(artifact_path="model", model_id=model_id)
        mlflow.pyfunc.save_model(
            path=str(scratch / "model"),
            mlflow_model=model,
            python_model=str(scratch / "scoring_model.py"),
            artifacts={"bundle": str(bundle.resolve(strict=True))},
            signature=_signature(card),
            input_example=_example(),
            pip_requirements=[
                f"{package}=={importlib.metadata.version(package)}" for package in REQUIREMENTS
            ],
        )
    saved = scratch / "model"
    (saved / "artifacts" / bundle.resolve().name).rename(saved / "artifacts" / "bundle")
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = "scoring_model.py"
    flavor["artifacts"]["bundle"] = {"path": "artifacts/bundle", "uri": "artifacts/bundle"}
    model.save(str(saved / "MLmodel"))
    return saved


def _example() -> Any:
    import pandas as pd

    return pd.DataFrame({"smiles": [EXAMPLE_SMILES]})


def _signature(card: ModelCard) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    smiles = ColSpec("string", "smiles")
    ending = [ColSpec("boolean", "valid"), ColSpec("string", "reason", required=False)]
    if card.kind == "trunk":
        features = ColSpec(Array(DataType.double), "features", required=False)
        return ModelSignature(Schema([smiles]), Schema([smiles, features, *ending]))
    columns = [ColSpec("string", "endpoint"), ColSpec("double", "probability", required=False)]
    params = [ParamSpec("endpoints", DataType.string, [], shape=(-1,))]
    if card.conformal_levels:
        columns += [
            ColSpec("double", "calibrated_probability", required=False),
            ColSpec("string", "conformal_set", required=False),
            ColSpec("boolean", "in_domain", required=False),
        ]
        params.append(ParamSpec("significance", DataType.double, scoring.SIGNIFICANCE))
    if card.regression_endpoints:
        names = ("value", "value_low", "value_high") if card.conformal_levels else ("value",)
        columns += [ColSpec("double", name, required=False) for name in names]
    params.append(ParamSpec("embeddings", DataType.boolean, False))
    return ModelSignature(Schema([smiles]), Schema([smiles, *columns, *ending]), ParamSchema(params))


def _point_aliases(
    run: TrackedRun, version: Any, *, card: ModelCard, allow_synthetic_champion: bool
) -> Decision:
    client, name, number = run.store.client, version.name, int(version.version)
    newest = max(int(other.version) for other in client.search_model_versions(f"name = '{name}'"))
    if number < newest:
        return Decision(False, f"version {newest} is newer: aliases are left as they are")
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    aliases = client.get_registered_model(name).aliases
    if aliases.get(CHAMPION) == version.version:
        return Decision(True, "it is champion already")
    decision = decide(
        Candidate(card.data, card.validation, card.phase),
        _champion(run, name=name, number=aliases.get(CHAMPION)),
        allow_synthetic_champion=allow_synthetic_champion,
    )
    if decision.promoted:
        client.set_registered_model_alias(name, CHAMPION, version.version)
    return decision


def _champion(run: TrackedRun, *, name: str, number: str | None) -> Candidate | None:
    if number is None:
        return None
    champion = run.store.client.get_model_version(name, str(number))
    held = read_card(Path(champion.source) / "artifacts" / "bundle")
    return Candidate(held.data, held.validation, held.phase)


def _describe(run: TrackedRun, *, name: str, number: int, reason: str) -> RegisteredVersion:
    version = run.store.client.get_model_version(name, str(number))
    return RegisteredVersion(
        name=name,
        version=number,
        model_id=version.tags["motet.model_id"],
        aliases=tuple(sorted(version.aliases)),
        reason=reason,
        files=Path(version.source),
    )
