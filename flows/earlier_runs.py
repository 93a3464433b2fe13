"""What a party keeps of a run for its later runs, and finds again: the model to start from, and what was tuned.

Why: a warm start, a report and a production model rest on an earlier run, and each party looks in its own directory
only; nothing of it travels but a digest. Runs: on every site. Source: own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import SettingsError
from flows.sites import Site
from tasks.evaluation.score_tables import CALIBRATION
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.preparation_rules import StructureRules
from tasks.local_training.parameters import (
    Parameters,
    check_layout,
    head_layout,
    initial_head,
    read_parameters,
    write_parameters,
)
from tasks.studies.phases import Phase, spoilt_folds

KEPT = "kept"
RECORD = "record.json"
HEAD = "head.safetensors"
SHARED = "shared.safetensors"
CALIBRATIONS = "calibrations"


class KeptModel(BaseModel):
    """What a party notes of the model that a run chose.

    Attributes:
        trunk_sha256: Digest of the shared model.
        best_round: The round after which it stood.
        phase: The run's.
        hidden: Width of the trunk.
        layers: Its residual layers.
        recipe: How molecules become bits.
        endpoints: Names of the rows: of a partner's head, or of the catalogue head at the coordinator.
        figure: The AUPRC that the model is judged by: securely summed, or the partner's own; None if not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk_sha256: str
    best_round: int
    phase: Phase
    hidden: int
    layers: int
    recipe: dict[str, str]
    endpoints: tuple[str, ...]
    figure: float | None = None


def recipe(rules: StructureRules) -> dict[str, str]:
    """How a run turns a molecule into bits, as far as a model depends on it."""
    return {
        "standardization": rules.standardization,
        "identity": rules.identity,
        **{name: str(value) for name, value in rules.fingerprint.model_dump(mode="json").items()},
    }


def keep(site: Site, record: KeptModel, arrays: dict[str, Parameters]) -> None:
    """Keep a model under a party's directory of the run; the record comes last."""
    directory = site.root / KEPT
    directory.mkdir(parents=True, exist_ok=True)
    for name, parameters in arrays.items():
        write_parameters(directory / name, parameters)
    replace_whole(directory / RECORD, [canonical_bytes(record.model_dump(mode="json"))])


def kept(site: Site) -> KeptModel | None:
    """What a party noted of a run; None if it never ended here, or another version wrote it."""
    try:
        return KeptModel.model_validate_json((site.root / KEPT / RECORD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


@dataclass(frozen=True)
class EarlierRuns:
    """A party's own earlier runs.

    Attributes:
        site: The party within one of its runs, by the run's name.
        names: Names of its runs, oldest first.
    """

    site: Callable[[str], Site]
    names: Callable[[], Iterable[str]]

    def of_trunk(self, sha256: str) -> tuple[Site, KeptModel] | None:
        """The newest run that chose a shared model of this digest, if this party took part in it."""
        for name in reversed(list(self.names())):
            site = self.site(name)
            record = kept(site)
            if record is not None and record.trunk_sha256 == sha256:
                return site, record
        return None

    def demand(self, run_id: str, *, phase: Phase) -> tuple[Site, KeptModel]:
        """A finished run of a phase.

        Raises:
            SettingsError: If this party has none of that name and phase.
        """
        site = self.site(run_id)
        record = kept(site)
        if record is None or record.phase != phase:
            found = "no finished run" if record is None else f"a run of phase '{record.phase}'"
            raise SettingsError(
                f"'{site.name}' needs the run '{run_id}' of phase '{phase}', and has {found} of that name",
                advice=f"finish it first: motet run --phase {phase} --run-id {run_id}",
            )
        return site, record


NO_RUNS = EarlierRuns(site=lambda name: Site(name, Path("/nonexistent")), names=tuple)
"""Of a party without a past."""


def calibrations(site: Site, arm: str) -> Path:
    """Where a phase keeps an arm's scores of a fold that it held out."""
    return site.root / KEPT / CALIBRATIONS / arm / "scores.arrow"


def bring_calibrations(scores: Path, *, arms: Sequence[str], tuned: Site, site: Site) -> None:
    """Put the tuning run's held-out scores beside a report's, so that its page can judge them, and keep the report's own.

    Args:
        scores: Directory of the report's test scores by arm.
        arms: The arms of the report.
        tuned: The partner in the tuning run.
        site: The partner in the report.

    Raises:
        SettingsError: If the tuning run had fewer arms.
    """
    for arm in arms:
        if not calibrations(tuned, arm).exists():
            raise SettingsError(
                f"the tuning run '{tuned.root.name}' of '{site.name}' has no arm '{arm}' to calibrate on",
                advice="repeat the report with --no-pooled-arm" if arm == "pooled" else "tune again",
            )
        target = scores / arm / CALIBRATION / "scores.arrow"
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(target, [calibrations(tuned, arm).read_bytes()])
        calibrations(site, arm).parent.mkdir(parents=True, exist_ok=True)
        replace_whole(calibrations(site, arm), [(scores / arm / "scores.arrow").read_bytes()])


def warm_head(
    earlier: tuple[Site, KeptModel] | None, endpoints: Sequence[str], *, hidden: int, seed: int
) -> Parameters | None:
    """A partner's first head: rows of its own earlier head where the endpoint had one, fresh rows elsewhere.

    Returns:
        ``weight (n_endpoints, H)`` and ``bias (n_endpoints,)``; None if there is nothing to start from.

    Raises:
        UpdateMismatch: If the kept head is damaged.
    """
    if earlier is None or earlier[1].hidden != hidden:
        return None
    site, record = earlier
    old = read_parameters(site.root / KEPT / HEAD)
    check_layout(old, head_layout(len(record.endpoints), hidden))
    return _with_rows(initial_head(len(endpoints), hidden, seed=seed), endpoints, old, record.endpoints)


def _with_rows(
    new: Parameters, new_names: Sequence[str], old: Parameters, old_names: Sequence[str]
) -> Parameters:
    """Replace the rows of ``new`` that ``old`` has under the same name; in place."""
    place = {name: number for number, name in enumerate(old_names)}
    pairs = [(number, place[name]) for number, name in enumerate(new_names) if name in place]
    here, there = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    for name, array in new.items():
        array[here] = old[name][there]
    return new


def warm_shared(
    earlier: EarlierRuns, sha256: str, *, fresh: Parameters, names: Sequence[str], prefix: str
) -> Parameters:
    """The first shared model: an earlier trunk, and catalogue rows matched by endpoint; rows without a match stay fresh.

    Args:
        earlier: The coordinator's earlier runs.
        sha256: Digest of the earlier shared model.
        fresh: A first shared model of the new run's layout.
        names: Endpoints of the new catalogue.
        prefix: What names of the catalogue head's arrays begin with.

    Raises:
        SettingsError: If no finished run here chose that model, or it does not fit the new run.
    """
    found = earlier.of_trunk(sha256)
    if found is None:
        raise SettingsError("the run whose model training should start from has left nothing here")
    site, record = found
    old = read_parameters(site.root / KEPT / SHARED)
    trunk = {name: array for name, array in old.items() if not name.startswith(prefix)}
    check_layout(
        trunk, tuple((name, array.shape) for name, array in fresh.items() if not name.startswith(prefix))
    )
    heads = [
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for arrays in (fresh, old)
    ]
    if all(heads):
        _with_rows(heads[0], names, heads[1], record.endpoints)
    return trunk | {prefix + name: array for name, array in heads[0].items()}


def resolve_start(
    earlier: EarlierRuns, run_id: str, *, hidden: int, layers: int, phase: Phase, rules: StructureRules
) -> str:
    """Digest of the shared model that a finished run chose, once it is seen to fit.

    Raises:
        SettingsError: If there is no such run, layout or recipe differ, or the model was trained on a fold that the new
            run measures.
    """
    record = kept(earlier.site(run_id))
    if record is None:
        raise SettingsError(
            f"--warm-start: there is no finished run '{run_id}' here that left a model to start from",
            advice="see `motet runs`",
        )
    old, new = (record.hidden, record.layers), (hidden, layers)
    if old != new:
        raise SettingsError(
            f"--warm-start: the model of run '{run_id}' has --hidden {old[0]} --layers {old[1]}, this run has --hidden "
            f"{new[0]} --layers {new[1]}",
            advice="repeat its --hidden and --layers",
        )
    spoilt = spoilt_folds(record.phase, phase)
    if spoilt:
        raise SettingsError(
            f"--warm-start: the model of run '{run_id}' (phase '{record.phase}') was trained on fold {spoilt[0]}, which this "
            "run would measure it on",
            advice="start from a tuning run, or from a report for a report; from a final model only another one starts",
        )
    differ = sorted(name for name, value in recipe(rules).items() if record.recipe.get(name) != value)
    if differ:
        raise SettingsError(
            f"--warm-start: the model of run '{run_id}' was trained on another recipe of molecules: {', '.join(differ)} "
            "differ",
            advice="start anew: its rows stand for other substructures",
        )
    return record.trunk_sha256
