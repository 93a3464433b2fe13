"""Candidate endpoints of a block of assays: thresholds, labels, quorums, weights.

Why: everything about one assay is decided from that assay's own pairs, so assays are worked on in blocks that fit
the processor's cache. Runs: on the partner. Source: MELLODDY-TUNER 3, read in its code; docs/data-preparation.md
says rule by rule where ours differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from data_contracts.catalogue import ASSAY_TYPES
from tasks.featurization.assay_table import BOTH, CATALOGUE_TYPE, LOW, AssayTable, Catalogue
from tasks.featurization.blocks import N_FOLDS, Block
from tasks.featurization.measurements import BoolVector, FloatVector, IntVector, Measured, labels_at
from tasks.featurization.preparation_rules import AssayTypeRule, PreparationRules
from tasks.featurization.quorums import meets_evaluation, meets_training, shared_weights
from tasks.featurization.thresholds import (
    AUX_HIGH,
    AUX_LOW,
    BINARY,
    DEFAULT,
    EXPERT,
    FIXED,
    METHODS,
    Thresholds,
    constant_columns,
    given_columns,
    given_or_adaptive,
    given_or_quantiles,
    joined,
    point_values,
)

NO_LABEL = -1
N_OUTCOMES = 3  # no label, inactive, active
PAIRS_AT_ONCE = 1 << 15  # such arrays stay in the processor's cache


@dataclass(frozen=True)
class Candidates:
    """Candidate endpoints; arrays of shape ``(n_candidates,)``.

    Attributes:
        assay: Row of the assay table.
        threshold: NaN for an assay without any threshold.
        method: Index into ``METHODS``.
        type_code: Assay type whose rules held, index into ``ASSAY_TYPES``.
        n_active, n_inactive: Labels.
        is_trained, in_evaluation, is_auxiliary: What was decided.
        weight: In the training loss; 0 where not trained.
        catalogue_row: Row of the catalogue that names the endpoint, -1 for none.
        is_constant: Left out because the values of its assay do not vary.
    """

    assay: IntVector
    threshold: FloatVector
    method: npt.NDArray[np.int8]
    type_code: IntVector
    n_active: IntVector
    n_inactive: IntVector
    is_trained: BoolVector
    in_evaluation: BoolVector
    is_auxiliary: BoolVector
    weight: FloatVector
    catalogue_row: IntVector
    is_constant: BoolVector

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.assay)

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Put the candidates of several blocks one behind the other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class SomeLabels:
    """Labels of pairs; arrays of shape ``(n_labels,)``; candidates are numbered within the block."""

    structure: IntVector
    candidate: IntVector
    label: npt.NDArray[np.int8]

    def known(self, trained: BoolVector) -> "SomeLabels":
        """Keep the labels of trained candidates, without those that say ``NO_LABEL``."""
        rows = np.flatnonzero(trained.take(self.candidate) & (self.label != NO_LABEL))
        return SomeLabels(self.structure.take(rows), self.candidate.take(rows), self.label.take(rows))

    @classmethod
    def joined(cls, parts: Sequence["SomeLabels"]) -> "SomeLabels":
        """Put several parts, at least one, one behind the other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Judged:
    """What was decided about a block.

    Attributes:
        candidates: All candidate endpoints.
        labels: Labels of those that are trained.
        n_ambiguous: Pairs that had no label at a threshold because they are censored, summed over thresholds.
    """

    candidates: Candidates
    labels: list[SomeLabels]
    n_ambiguous: int


def thresholds_of(
    block: Block, table: AssayTable, *, rules: PreparationRules, catalogue: Catalogue
) -> Thresholds:
    """Find the thresholds of every assay of a block, by the rule of its type."""
    n_assays = len(block.assay)
    type_code, binary = table.type_code[block.assay], table.is_binary[block.assay]
    found: list[tuple[FloatVector, npt.NDArray[np.int8], BoolVector]] = []
    for code in np.unique(type_code).tolist():
        wanted = (type_code == code) & ~binary & ~block.is_constant
        if wanted.any():
            part = _by_type(block, table, rules.in_order[code], wanted=wanted, catalogue=catalogue)
            found.append((part.value, part.method, wanted))
    zero = np.where(binary & ~block.is_constant, 0.0, np.nan)[:, np.newaxis]
    found.append((zero, np.full((n_assays, 1), BINARY, dtype=np.int8), binary))
    n_places = max(value.shape[1] for value, _, _ in found)
    value = np.full((n_assays, n_places), np.nan)
    method = np.zeros((n_assays, n_places), dtype=np.int8)
    for part_value, part_method, wanted in found:
        value[wanted, : part_value.shape[1]] = part_value[wanted]
        method[wanted, : part_value.shape[1]] = part_method[wanted]
    return Thresholds(value, method)


def _by_type(
    block: Block, table: AssayTable, rule: AssayTypeRule, *, wanted: BoolVector, catalogue: Catalogue
) -> Thresholds:
    """Thresholds of the wanted assays, which have one type; other rows are without meaning."""
    n_assays = len(block.assay)
    given = np.where(wanted[:, np.newaxis], table.given[block.assay], np.nan)
    direction = table.direction[block.assay]
    name = rule.thresholds.rule
    if name in {"given_or_adaptive", "given_or_quantiles"}:
        rows = wanted[block.measured.assay]
        measured = block.measured.where(rows)
        if name == "given_or_adaptive":
            return given_or_adaptive(measured, given, rule.thresholds)
        return given_or_quantiles(measured, given, low=direction == LOW)
    if name == "catalogue":
        return _from_catalogue(block, table, catalogue)
    if name == "fixed":
        sign = np.where(direction == LOW, -1.0, 1.0)
        columns = [(sign * value, FIXED) for value in rule.thresholds.default]
        return joined(columns, n_assays=n_assays)
    if name == "given_or_default":
        none = np.asarray(np.isnan(given).all(axis=1))
        columns = [*given_columns(given), *constant_columns(rule.thresholds.default, none, DEFAULT)]
        return joined(columns, n_assays=n_assays)
    return joined([], n_assays=n_assays)


def _from_catalogue(block: Block, table: AssayTable, catalogue: Catalogue) -> Thresholds:
    """The catalogue's thresholds for assays that it knows; the assay's own for the others."""
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(catalogue.assay_id):
        rows_of.setdefault(name, []).append(row)
    listed = [rows_of.get(table.catalogue_id[assay], []) for assay in block.assay.tolist()]
    n_places = max([*map(len, listed), table.given.shape[1]])
    value = np.full((len(listed), n_places), np.nan)
    method = np.full(value.shape, EXPERT, dtype=np.int8)
    for assay, rows in enumerate(listed):
        if not rows:
            value[assay, : table.given.shape[1]] = table.given[block.assay[assay]]
        for place, row in enumerate(rows):
            value[assay, place] = catalogue.threshold[row]
            method[assay, place] = METHODS.index(catalogue.method[row])
    order = np.argsort(value, axis=1, kind="stable")
    value, method = np.take_along_axis(value, order, axis=1), np.take_along_axis(method, order, axis=1)
    value[:, 1:][np.diff(value, axis=1) == 0] = np.nan
    return Thresholds(value, method)


def labels_of_pairs(
    measured: Measured, threshold: FloatVector, *, direction: IntVector
) -> npt.NDArray[np.int8]:
    """Label pairs at one threshold each.

    Args:
        measured: The pairs.
        threshold: One per pair; NaN gives no label.
        direction: ``HIGH``, ``LOW`` or ``BOTH`` (active is a magnitude of at least the threshold); one, or one per pair.

    Returns:
        1 active, 0 inactive, ``NO_LABEL`` where a censored value does not tell; shape ``(n_pairs,)``.
    """
    active, inactive = labels_at(measured, threshold, high=direction != LOW)
    both = direction == BOTH
    if both.any():
        active = np.where(both, active | (measured.upper <= -threshold), active)
        inside = (measured.lower > -threshold) & (measured.upper < threshold)
        inactive = np.where(both, inside, inactive)
    return active.view(np.int8) - (~(active | inactive)).view(np.int8)


def judge(block: Block, table: AssayTable, *, rules: PreparationRules, catalogue: Catalogue) -> Judged:
    """Decide about all endpoints of a block.

    Args:
        block: Assays and pairs.
        table: All assays.
        rules: The profile.
        catalogue: The consortium's catalogue.
    """
    places = _Places.of(thresholds_of(block, table, rules=rules, catalogue=catalogue))
    counts = np.zeros(len(places.assay) * N_FOLDS * N_OUTCOMES, dtype=np.int64)
    labels: list[SomeLabels] = []
    for found, fold in _labels_of_runs(block, table, places, rules=rules):
        cell = found.candidate * N_FOLDS
        cell += fold
        cell *= N_OUTCOMES
        cell += found.label
        cell -= NO_LABEL
        counts += np.bincount(cell, minlength=len(counts))
        labels.append(found)
    by_outcome = counts.reshape(-1, N_FOLDS, N_OUTCOMES)
    candidates = _decide(block, table, places, by_outcome[:, :, 1:], rules=rules, catalogue=catalogue)
    kept = [some.known(candidates.is_trained) for some in labels]
    return Judged(candidates, kept, int(by_outcome[:, :, 0].sum()))


def _labels_of_runs(
    block: Block, table: AssayTable, places: "_Places", *, rules: PreparationRules
) -> Iterator[tuple[SomeLabels, IntVector]]:
    """Yield the labels of runs of pairs, one threshold an assay at a time, and the fold of each."""
    everything = _as_labelled(block, table, rules)
    direction = table.direction[block.assay[places.assay]]
    for start in range(0, len(everything), PAIRS_AT_ONCE):
        run = slice(start, start + PAIRS_AT_ONCE)
        measured, fold = everything.run(run), block.fold[run]
        count = places.count.take(measured.assay)
        for place in range(int(count.max())):
            if count.min() <= place:
                rows = np.flatnonzero(count > place)
                measured, fold, count = measured.at(rows), fold.take(rows), count.take(rows)
            candidate = (places.first + place).take(measured.assay)
            label = labels_of_pairs(
                measured,
                places.threshold.take(candidate),
                direction=direction.take(candidate) if direction.any() else direction[:1],
            )
            yield SomeLabels(measured.structure, candidate, label), fold


def _as_labelled(block: Block, table: AssayTable, rules: PreparationRules) -> Measured:
    """The pairs as thresholds see them: of some assay types a bound is taken for a value."""
    ignores = np.array([rule.labels_ignore_relation for rule in rules.in_order])
    measured, ignored = block.measured, ignores[table.type_code[block.assay]]
    if not ignored.any():
        return measured
    at = np.flatnonzero(ignored.take(measured.assay))
    lower, upper = measured.lower.copy(), measured.upper.copy()
    lower[at] = upper[at] = point_values(measured.at(at))
    return Measured(measured.assay, measured.structure, lower, upper)


@dataclass(frozen=True)
class _Places:
    """Candidates of a block in the order of assay and threshold; arrays of shape ``(n_candidates,)``.

    Attributes:
        assay: Assay within the block; one without any threshold is one candidate, to be explained.
        threshold: NaN where there is none.
        method: Index into ``METHODS``.
        first: First candidate of each assay, shape ``(n_assays,)``.
        count: Thresholds of each assay.
    """

    assay: IntVector
    threshold: FloatVector
    method: npt.NDArray[np.int8]
    first: IntVector
    count: IntVector

    @classmethod
    def of(cls, thresholds: Thresholds) -> "_Places":
        listed = ~np.isnan(thresholds.value)
        count = listed.sum(axis=1)
        listed[:, 0] |= count == 0
        assay, place = np.nonzero(listed)
        first = np.searchsorted(assay, np.arange(len(count)))
        return cls(assay, thresholds.value[assay, place], thresholds.method[assay, place], first, count)


def _decide(
    block: Block,
    table: AssayTable,
    places: _Places,
    counts: npt.NDArray[np.int64],
    *,
    rules: PreparationRules,
    catalogue: Catalogue,
) -> Candidates:
    """Apply quorums and weights; ``counts`` has shape ``(n_candidates, n_folds, 2)``."""
    assay = block.assay[places.assay]
    rows = _catalogue_rows(table.catalogue_id[assay], places.threshold, places.method, catalogue)
    type_code = _types_after_demotion(table.type_code[assay], rows, counts, rules=rules)
    trained, evaluated = _quorums(type_code, counts, rules=rules)
    trained &= ~np.isnan(places.threshold)
    auxiliary = np.array([rule.auxiliary for rule in rules.in_order])[type_code]
    auxiliary |= np.isin(places.method, (AUX_LOW, AUX_HIGH))
    weight = np.zeros(len(assay))
    initial = np.array([rule.weight for rule in rules.in_order])[type_code]
    weight[trained] = shared_weights(places.assay[trained], initial[trained])
    total = counts.sum(axis=1)
    return Candidates(
        assay=assay,
        threshold=places.threshold,
        method=places.method,
        type_code=type_code,
        n_active=total[:, 1],
        n_inactive=total[:, 0],
        is_trained=trained,
        in_evaluation=trained & evaluated & ~auxiliary,
        is_auxiliary=auxiliary,
        weight=weight,
        catalogue_row=np.where(type_code == table.type_code[assay], rows, -1),
        is_constant=block.is_constant[places.assay],
    )


def _quorums(
    type_code: IntVector, counts: npt.NDArray[np.int64], *, rules: PreparationRules
) -> tuple[BoolVector, BoolVector]:
    """Whether each candidate meets the training and the evaluation quorum of its type."""
    trained, evaluated = np.zeros(len(type_code), dtype=np.bool_), np.zeros(len(type_code), dtype=np.bool_)
    for code in np.unique(type_code).tolist():
        rule, at = rules.in_order[code], type_code == code
        trained[at] = meets_training(counts[at], rule.training)
        evaluated[at] = meets_evaluation(counts[at], rule.evaluation, folds=rules.evaluation_folds)
    return trained, evaluated


def _types_after_demotion(
    type_code: IntVector, rows: IntVector, counts: npt.NDArray[np.int64], *, rules: PreparationRules
) -> IntVector:
    """Demote catalogue endpoints that the catalogue does not know, or that miss its quorum."""
    rule = rules.assay_types["CATALOG_PANEL"]
    if rule.demoted_to is None:
        return type_code
    stays = (rows >= 0) & meets_training(counts, rule.training)
    return np.where((type_code == CATALOGUE_TYPE) & ~stays, ASSAY_TYPES.index(rule.demoted_to), type_code)


def _catalogue_rows(
    names: npt.NDArray[np.object_],
    threshold: FloatVector,
    method: npt.NDArray[np.int8],
    catalogue: Catalogue,
) -> IntVector:
    """Find the catalogue's endpoint of each candidate: the same assay, threshold and method."""
    known = {
        (assay, value, how): row
        for row, (assay, value, how, endpoint) in enumerate(
            zip(
                catalogue.assay_id,
                catalogue.threshold.tolist(),
                catalogue.method,
                catalogue.endpoint_id,
                strict=True,
            )
        )
        if endpoint is not None
    }
    asked = zip(names.tolist(), threshold.tolist(), method.tolist(), strict=True)
    return np.array([known.get((n, t, METHODS[m]), -1) for n, t, m in asked], dtype=np.int64)
