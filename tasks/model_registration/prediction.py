"""Predict with a registered model or a model's directory.

Why: the command line answers in about a second and runs no code that came with a model: the installed code
prepares the molecules, and the files must be those that were registered. Runs: anywhere. Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_contracts.canonical_json import digest_of
from data_contracts.errors import SettingsError, UpdateMismatch
from tasks.featurization import fingerprints, standardization
from tasks.model_registration import molecules, scoring
from tasks.model_registration.bundle import ModelCard, read_card
from tasks.model_registration.registry import find_version


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict.

    Attributes:
        label: ``NAME/VERSION``, or the name of its directory.
        card: What it says about itself.
        scorer: Its arrays, with the installed code.
    """

    label: str
    card: ModelCard
    scorer: scoring.ScoringModel

    def predict(
        self,
        smiles: Sequence[str],
        *,
        endpoints: Sequence[str] = (),
        significance: float = scoring.SIGNIFICANCE,
        embeddings: Literal["no", "instead"] = "no",
    ) -> dict[str, list[Any]]:
        """Predict as the columns of a table.

        Args:
            smiles: Structures.
            endpoints: Which endpoints; all if empty.
            significance: How often a conformal set may miss the true class, or an interval the true value; one of the
                card's levels.
            embeddings: The trunk's features instead of predictions.

        Returns:
            With endpoints: the contract *predictions*, one row per molecule and endpoint; a model that was not
            calibrated lacks the optional columns. Of a trunk, and of embeddings: ``smiles, features, valid, reason``, one row per molecule.

        Raises:
            SettingsError: If an endpoint or a level is unknown.
        """
        if self.card.kind == "trunk" or embeddings == "instead":
            if self.scorer.lacks_permutation:
                raise SettingsError(
                    f"'{self.label}' is a trunk that learned from permuted fingerprint bits; only the partners of its "
                    "consortium hold the permutation",
                    advice="predict with a partner's own model, at that partner",
                )
            if endpoints:
                raise SettingsError(
                    f"the features of '{self.label}' have no endpoints", advice="leave out --endpoint"
                )
            return self.scorer.embeddings(smiles)
        unknown = sorted(set(endpoints) - set(self.scorer.endpoints))
        if unknown:
            raise SettingsError(
                f"model '{self.label}' has no endpoint {unknown[:5]}; it has {len(self.scorer.endpoints)}",
                advice="leave out --endpoint to see all of them",
            )
        levels = self.card.conformal_levels
        if levels and significance not in levels:
            raise SettingsError(
                f"model '{self.label}' promises nothing at significance {significance:g}",
                advice=f"choose one of {', '.join(format(level, 'g') for level in levels)}",
            )
        return self.scorer.predictions(smiles, endpoints=endpoints, significance=significance)


def load_model(home: Path, model: str) -> LoadedModel:
    """Load a model after checking every file.

    Args:
        home: Where the registry lies.
        model: ``NAME``, ``NAME@ALIAS``, ``NAME/VERSION``, or a directory (a bundle, or an MLflow model).

    Raises:
        SettingsError: If there is no such model.
        UpdateMismatch: If a file is not the registered one, or the model needs other code than is installed.
    """
    directory = Path(model)
    if directory.is_dir():
        inner = directory / "artifacts" / "bundle"
        bundle = inner if inner.is_dir() else directory
        return _load(bundle, label=directory.resolve().name, card=read_card(bundle))
    stored = find_version(home / "mlflow" / "mlflow.db", model)
    label = f"{stored.name}/{stored.version}"
    card = read_card(stored.bundle)
    if digest_of(card.model_dump(mode="json")) != stored.card_sha256:
        raise UpdateMismatch(
            f"the card of model '{label}' is not the one that was registered",
            advice="somebody changed the artifacts: restore them, or register the model again",
        )
    return _load(stored.bundle, label=label, card=card)


def _load(bundle: Path, *, label: str, card: ModelCard) -> LoadedModel:
    known = (standardization.PROFILE, standardization.PUBLISHED_PROFILE)
    same_kind = card.fingerprint.get("kind") == fingerprints.FINGERPRINT["kind"]
    if (
        set(card.fingerprint) != set(fingerprints.FINGERPRINT)
        or not same_kind
        or card.standardization not in known
    ):
        raise UpdateMismatch(
            f"model '{label}' prepares molecules by {card.standardization} and {card.fingerprint}, which is not what "
            "this motet does",
            advice="load it with mlflow.pyfunc.load_model: the model carries its own code",
        )
    try:
        installed = {
            "standardization": standardization,
            "fingerprints": fingerprints,
            "molecules": molecules,
        }
        scorer = scoring.load(bundle, sources=installed)
    except (OSError, ValueError) as exc:
        raise UpdateMismatch(
            f"model '{label}' cannot be loaded: {exc if isinstance(exc, ValueError) else type(exc).__name__}",
            advice="restore its files, or register the model again",
        ) from None
    return LoadedModel(label, card, scorer)
