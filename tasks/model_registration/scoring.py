"""SMILES to predictions, from one directory: card, weights, and the source files that make fingerprints.

Why: the consumer of a model has RDKit and NumPy, not motet; so this file travels inside every model, imports
none of our packages, and prepares a molecule with the very code that prepared the training data.
Runs: anywhere. Source: network as in SparseChem (Arany et al.): embedding sum, residual layers, ReLU, linear.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

CARD = "card.json"
WEIGHTS = "weights.safetensors"
MODULES = ("standardization", "fingerprints", "molecules")
SOURCES = (*(f"{name}.py" for name in MODULES), "scoring.py")
FORMAT = "motet-model@1"
CHUNK = 256  # molecules embedded at once: bounds the gathered rows to about 100 MB at 1,000 hidden units

SIGNIFICANCE = 0.2  # of conformal sets unless asked otherwise: the true class is left out one time in five
SETS = np.array(["neither", "active", "inactive", "both"], dtype=object)
PERMUTATION = "fingerprint.permutation"  # new place of each bit, uint16 of shape (n_bits,)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoringModel:
    """A trunk, with a head or without, and the code that turns SMILES into set bits.

    Attributes:
        card: Content of ``card.json``.
        weights: Arrays by name: ``embedding.weight (n_bits, H)``, ``embedding.bias (H,)``, ``layers.i.*``, and
            for a model with endpoints ``weight (n_endpoints, H)`` and ``bias (n_endpoints,)``. A model that was
            calibrated also has ``calibration.slope`` and ``.offset (n_endpoints,)``, ``conformal.active`` and
            ``.inactive (n_levels, n_endpoints)``, ``domain.known (n_bits,)`` and ``domain.least_share (1,)``. Where it
            has regression endpoints, their rows are the last, on the assays' scales, and a calibrated model has
            ``interval.half_width (n_levels, n_regression)`` for them; the other arrays are of the classes alone.
            One that learned from permuted bits has ``fingerprint.permutation``, unless it is a trunk.
        standardization: The module that finds a molecule's parent structure.
        fingerprints: The module that hashes its environments.
        molecules: The module that does both as the card says.
    """

    card: Mapping[str, Any]
    weights: Mapping[str, FloatArray]
    standardization: ModuleType
    fingerprints: ModuleType
    molecules: ModuleType

    @property
    def endpoints(self) -> list[str]:
        """Names of the endpoints, in the order of the head: classes, then numbers; none for a trunk."""
        return [*self.card["endpoints"], *self.card.get("regression_endpoints", ())]

    @property
    def n_classes(self) -> int:
        """How many of the endpoints are classes."""
        return len(self.card["endpoints"])

    @property
    def is_calibrated(self) -> bool:
        """Whether predictions say how far they can be believed."""
        return "calibration.slope" in self.weights

    @property
    def lacks_permutation(self) -> bool:
        """Whether it learned from permuted bits and cannot permute them itself."""
        recipe = self.card.get("recipe") or {}
        return recipe.get("permutation", "none") != "none" and PERMUTATION not in self.weights

    @cached_property
    def _preparer(self) -> Any:
        return self.molecules.Preparer(self.card, self.standardization, self.fingerprints)

    def features(self, smiles: Sequence[str]) -> tuple[FloatArray, list[str | None]]:
        """Compute the trunk's features.

        Args:
            smiles: Structures, n_molecules of them.

        Returns:
            float32 of shape ``(n_valid, H)``, and for each molecule None or the reason why it is invalid.

        Raises:
            ValueError: If the bits were permuted and the model does not hold the permutation.
        """
        starts, bits, reasons = self._set_bits(smiles)
        return self._features_of(starts, bits), reasons

    def _features_of(self, starts: IntArray, bits: npt.NDArray[np.uint16]) -> FloatArray:
        weight = self.weights["embedding.weight"]
        features = np.empty((len(starts) - 1, weight.shape[1]), dtype=np.float32)
        for first in range(0, len(features), CHUNK):
            part = starts[first : first + CHUNK + 1]
            rows = weight[bits[part[0] : part[-1]]]
            features[first : first + CHUNK] = np.add.reduceat(rows, part[:-1] - part[0], axis=0)
        features += self.weights["embedding.bias"]
        layer = 0
        while f"layers.{layer}.weight" in self.weights:
            matrix, bias = self.weights[f"layers.{layer}.weight"], self.weights[f"layers.{layer}.bias"]
            features += np.maximum(features, 0) @ matrix.T + bias
            layer += 1
        return np.maximum(features, 0, out=features)

    def _in_domain(self, starts: IntArray, bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
        """Whether enough of a molecule's environments occurred in training, shape ``(n_valid,)``."""
        if len(starts) == 1:
            return np.empty(0, dtype=bool)
        known = np.add.reduceat(self.weights["domain.known"][bits], starts[:-1])
        inside: npt.NDArray[np.bool_] = known >= self.weights["domain.least_share"] * np.diff(starts) - 1e-6
        return inside

    def _set_bits(self, smiles: Sequence[str]) -> tuple[IntArray, npt.NDArray[np.uint16], list[str | None]]:
        if self.lacks_permutation:
            raise ValueError(
                "this trunk learned from permuted fingerprint bits and does not hold the permutation, which only the "
                "partners of its consortium have: predict with a partner's own model"
            )
        starts, bits, reasons = self._preparer.set_bits(smiles)
        return starts, self.weights[PERMUTATION][bits] if PERMUTATION in self.weights else bits, reasons

    def probabilities(
        self, smiles: Sequence[str], *, endpoints: Sequence[str] = ()
    ) -> tuple[npt.NDArray[np.float64], list[str | None], list[str]]:
        """Predict the probability that each molecule is active on each endpoint.

        Args:
            smiles: Structures, n_molecules of them.
            endpoints: Which classification endpoints; all of them if empty.

        Returns:
            float64 of shape ``(n_valid, n_endpoints)``; None or the reason for each molecule; the endpoints.

        Raises:
            ValueError: If an endpoint is unknown, or a number.
        """
        rows, chosen = self._rows(list(endpoints) or self.card["endpoints"])
        if any(row >= self.n_classes for row in rows):
            raise ValueError("a regression endpoint has a value and no probability; use predictions()")
        features, reasons = self.features(smiles)
        return _sigmoid(self._logits(features, rows)), reasons, chosen

    def _rows(self, endpoints: Sequence[str]) -> tuple[list[int], list[str]]:
        """Head rows of the chosen endpoints, and their names; all if none is chosen."""
        chosen = list(endpoints) or self.endpoints
        place = {name: index for index, name in enumerate(self.endpoints)}
        unknown = [name for name in chosen if name not in place]
        if unknown:
            raise ValueError(
                f"the model has no endpoint {unknown[:5]}; it has {len(place)}, see its card.json"
            )
        return [place[name] for name in chosen], chosen

    def _logits(self, features: FloatArray, rows: list[int]) -> npt.NDArray[np.float64]:
        return (features @ self.weights["weight"][rows].T + self.weights["bias"][rows]).astype(np.float64)

    def predictions(
        self, smiles: Sequence[str], *, endpoints: Sequence[str] = (), significance: float = SIGNIFICANCE
    ) -> dict[str, list[Any]]:
        """Predict as the columns of a long table, one row per molecule and endpoint, molecule after molecule.

        Args:
            smiles: Structures.
            endpoints: Which endpoints; all of them if empty.
            significance: How often a conformal set may miss the true class; one of the card's levels.

        Returns:
            ``smiles, endpoint, probability, valid, reason``, and of a calibrated model in front of ``valid``
            ``calibrated_probability``, ``conformal_set`` (active, inactive, both or neither) and ``in_domain``. A model
            with regression endpoints also has ``value``, on the assay's scale, and if it was calibrated ``value_low`` and
            ``value_high``, between which the truth lies as often as promised (None where too little is known to promise);
            a row has either a probability or a value. An invalid molecule has its rows too, with None for each number
            and a reason.

        Raises:
            ValueError: If an endpoint is unknown, or a calibrated model has no such level.
        """
        rows, chosen = self._rows(endpoints)
        starts, bits, reasons = self._set_bits(smiles)
        outputs = self._logits(self._features_of(starts, bits), rows)
        found = self._columns(outputs, rows, significance=significance)
        if self.is_calibrated:
            found["in_domain"] = np.repeat(self._in_domain(starts, bits)[:, None], len(chosen), axis=1)
        valid = np.array([reason is None for reason in reasons], dtype=bool)
        each = len(chosen)
        return {
            "smiles": np.repeat(np.array([*smiles, None], dtype=object)[:-1], each).tolist(),
            "endpoint": chosen * len(smiles),
            **{name: _spread(values, valid) for name, values in found.items()},
            "valid": np.repeat(valid, each).tolist(),
            "reason": np.repeat(np.array([*reasons, None], dtype=object)[:-1], each).tolist(),
        }

    def _columns(
        self, outputs: npt.NDArray[np.float64], rows: list[int], *, significance: float
    ) -> dict[str, npt.NDArray[Any]]:
        """What is said of classes and of numbers, each of the shape of the outputs, None where it does not apply."""
        numeric = np.array(rows) >= self.n_classes
        classes = self._class_columns(
            outputs[:, ~numeric], np.array(rows)[~numeric], significance=significance
        )
        if self.n_classes == len(self.endpoints):
            return classes
        numbers = self._value_columns(
            outputs[:, numeric], np.array(rows)[numeric] - self.n_classes, significance=significance
        )
        parts = ((classes, ~numeric), (numbers, numeric))
        return {name: _beside(found, at) for part, at in parts for name, found in part.items()}

    def _class_columns(
        self, logits: npt.NDArray[np.float64], rows: IntArray, *, significance: float
    ) -> dict[str, npt.NDArray[Any]]:
        found: dict[str, npt.NDArray[Any]] = {"probability": _sigmoid(logits)}
        if self.is_calibrated and self.n_classes:
            slope, offset = (self.weights[f"calibration.{name}"][rows] for name in ("slope", "offset"))
            found["calibrated_probability"] = _sigmoid(slope * logits + offset)
            found["conformal_set"] = self._sets(logits, rows, significance=significance)
        return found

    def _value_columns(
        self, values: npt.NDArray[np.float64], rows: IntArray, *, significance: float
    ) -> dict[str, npt.NDArray[Any]]:
        if not self.is_calibrated:
            return {"value": values}
        half = self.weights["interval.half_width"][self._level(significance), rows].astype(np.float64)
        known = np.broadcast_to(np.isfinite(half), values.shape)
        low = np.asarray(np.where(known, values - half, None))
        high = np.asarray(np.where(known, values + half, None))
        return {"value": values, "value_low": low, "value_high": high}

    def _level(self, significance: float) -> int:
        levels = list(self.card["conformal_levels"])
        if significance not in levels:
            raise ValueError(f"the model promises nothing at significance {significance}; it has {levels}")
        return levels.index(significance)

    def _sets(
        self, logits: npt.NDArray[np.float64], rows: IntArray, *, significance: float
    ) -> npt.NDArray[Any]:
        """Names of the conformal sets, shape of the logits."""
        level = self._level(significance)
        active = logits >= self.weights["conformal.active"][level, rows]
        inactive = logits <= self.weights["conformal.inactive"][level, rows]
        names: npt.NDArray[Any] = SETS[active + 2 * inactive]
        return names

    def embeddings(self, smiles: Sequence[str]) -> dict[str, list[Any]]:
        """Compute the trunk's features as columns, one row per molecule: ``smiles, features, valid, reason``."""
        values, reasons = self.features(smiles)
        rows = iter(values.astype(np.float64).tolist())
        return {
            "smiles": list(smiles),
            "features": [next(rows) if reason is None else None for reason in reasons],
            "valid": [reason is None for reason in reasons],
            "reason": list(reasons),
        }


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probability of a logit; cannot overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _beside(values: npt.NDArray[Any], at: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Put columns at their places among others, None there, shape ``(n_valid, len(at))``."""
    wide = np.full((len(values), len(at)), None, dtype=object)
    wide[:, at] = values
    return wide


def _spread(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> list[Any]:
    """Values of the valid molecules at their places, None elsewhere, as one list molecule after molecule."""
    if valid.all():
        flat: list[Any] = values.reshape(-1).tolist()
        return flat
    column = np.full((len(valid), values.shape[1]), None, dtype=object)
    column[valid] = values
    spread: list[Any] = column.reshape(-1).tolist()
    return spread


def load(directory: Path, *, sources: Mapping[str, ModuleType] | None = None) -> ScoringModel:
    """Load a model after checking every file against its card.

    Args:
        directory: Holds ``card.json``, ``weights.safetensors`` and the source files.
        sources: ``MODULES`` to use; those of the directory if None.

    Raises:
        ValueError: If a file is not the one that the card names, the card is of another format, or the installed RDKit
            prepares molecules in another way than the one that prepared the training data.
    """
    card = json.loads((directory / CARD).read_bytes())
    if card.get("format") != FORMAT:
        raise ValueError(f"the model card has format {card.get('format')!r}, expected {FORMAT!r}")
    for name, expected in card["sha256"].items():
        if name not in (WEIGHTS, *SOURCES):
            raise ValueError(f"the model card names an unknown file {name!r}")
        with (directory / name).open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != expected:
            raise ValueError(
                f"{name} is not the file of this model: SHA-256 {got[:12]}, card {expected[:12]}"
            )
    modules = sources or {name: load_source(directory / f"{name}.py", name) for name in MODULES}
    modules["molecules"].check_rdkit(card, modules["standardization"], modules["fingerprints"])
    return ScoringModel(card, load_file(directory / WEIGHTS), **modules)


def load_source(path: Path, name: str) -> ModuleType:
    """Load a source file under a private name, so that it meets no module of the consumer.

    Its text is compiled here: Python's own loader would prefer a cached ``.pyc``, which no card vouches for.

    Raises:
        SyntaxError: If the file is no Python source.
    """
    content = path.read_bytes()
    private = f"_motet_model_{name}_{hashlib.sha256(content).hexdigest()[:16]}"
    if private not in sys.modules:
        module = ModuleType(private)
        module.__file__ = str(path)
        sys.modules[private] = module  # dataclasses look their module up
        try:
            exec(compile(content, path.name, "exec"), module.__dict__)  # noqa: S102 - the model's own code
        except BaseException:
            del sys.modules[private]  # else the next attempt would find half a module
            raise
    return sys.modules[private]
