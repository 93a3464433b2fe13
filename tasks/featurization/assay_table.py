"""A partner's assays as arrays, and what a profile's rules mean for each of them.

Why: rules are looked up once an assay, not once a row. Runs: on the partner. Source: own; the columns are those of
MELLODDY's T0 and T_cat files.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalogue import ASSAY_TYPES, DIRECTIONS, THRESHOLDS
from tasks.featurization.measurements import BoolVector, FloatVector, IntVector
from tasks.featurization.preparation_rules import AssayTypeRule, PreparationRules
from tasks.featurization.replicates import RULES

HIGH, LOW, BOTH = range(len(DIRECTIONS))
REPLICATE_RULES = tuple(RULES)
BY_DIRECTION = {HIGH: "highest", LOW: "lowest", BOTH: "largest_magnitude"}
NO_DECIMALS = -1
CATALOGUE_TYPE = ASSAY_TYPES.index("CATALOG_PANEL")


@dataclass(frozen=True)
class Catalogue:
    """The consortium's catalogue: endpoints that several partners have, under shared names.

    Attributes:
        assay_id: Catalogue assay of each row.
        endpoint_id: Shared name of the endpoint; None where a threshold has no endpoint of its own.
        threshold: Shape ``(n_rows,)``.
        method: How the threshold was found, such as ``expert``.
    """

    assay_id: list[str]
    endpoint_id: list[str | None]
    threshold: FloatVector
    method: list[str]


EMPTY_CATALOGUE = Catalogue([], [], np.empty(0), [])


@dataclass(frozen=True)
class AssayTable:
    """Assays in the order of the partner's table; arrays of shape ``(n_assays,)``.

    Attributes:
        assay_id: Names.
        type_code: Index into ``ASSAY_TYPES``.
        direction: ``HIGH``, ``LOW`` or ``BOTH``.
        given: The assay's own thresholds, shape ``(n_assays, 5)``, NaN where there is none.
        is_binary: Results are +1 or -1.
        in_regression: May be learned as numbers.
        catalogue_id: Name in the catalogue, or None.
        smallest, largest: Credible values.
        replicates: Index into ``REPLICATE_RULES``.
        decimals: ``NO_DECIMALS`` for all.
    """

    assay_id: npt.NDArray[np.object_]
    type_code: IntVector
    direction: IntVector
    given: FloatVector
    is_binary: BoolVector
    in_regression: BoolVector
    catalogue_id: npt.NDArray[np.object_]
    smallest: FloatVector
    largest: FloatVector
    replicates: IntVector
    decimals: IntVector

    def __len__(self) -> int:
        """Number of assays."""
        return len(self.assay_id)


def assay_table(assays: Any, rules: PreparationRules) -> AssayTable:
    """Read a table of the contract ``assays`` under a profile.

    Args:
        assays: ``pa.Table``.
        rules: The profile.
    """
    n_assays = assays.num_rows
    type_code = _codes(assays, "assay_type", ASSAY_TYPES)
    direction = _codes(assays, "direction", DIRECTIONS)
    given = [pc.fill_null(_column(assays, name, pa.float64()), np.nan).to_numpy() for name in THRESHOLDS]
    is_binary = _flags(assays, "is_binary", default=False)
    windows = [rule.credible or (-np.inf, np.inf) for rule in rules.in_order]
    replicates = np.array(
        [[_replicate_rule(rule, code) for code in BY_DIRECTION] for rule in rules.in_order], dtype=np.int64
    )[type_code, direction]
    return AssayTable(
        assay_id=_objects(assays, "assay_id"),
        type_code=type_code,
        direction=np.where(is_binary, HIGH, direction),
        given=np.stack(given, axis=1) if n_assays else np.empty((0, len(THRESHOLDS))),
        is_binary=is_binary,
        in_regression=_flags(assays, "use_in_regression", default=True) & ~is_binary,
        catalogue_id=_objects(assays, "catalogue_assay_id"),
        smallest=np.array([low for low, _ in windows])[type_code],
        largest=np.array([high for _, high in windows])[type_code],
        replicates=np.where(is_binary, REPLICATE_RULES.index("majority"), replicates),
        decimals=np.where(
            is_binary, NO_DECIMALS, np.array([_decimals(rule) for rule in rules.in_order])[type_code]
        ),
    )


def catalogue_of(table: Any) -> Catalogue:
    """Read a table of the contract ``catalogue``."""
    return Catalogue(
        table.column("catalogue_assay_id").to_pylist(),
        table.column("catalogue_endpoint_id").to_pylist(),
        table.column("threshold").to_numpy(),
        table.column("threshold_method").to_pylist(),
    )


def _decimals(rule: AssayTypeRule) -> int:
    return NO_DECIMALS if rule.decimals is None else rule.decimals


def _replicate_rule(rule: AssayTypeRule, direction: int) -> int:
    name = BY_DIRECTION[direction] if rule.replicates == "by_direction" else rule.replicates
    return REPLICATE_RULES.index(name)


def _column(table: Any, name: str, kind: Any) -> Any:
    return (
        table.column(name) if name in table.column_names else pa.chunked_array([pa.nulls(len(table), kind)])
    )


def _codes(table: Any, name: str, values: tuple[str, ...]) -> IntVector:
    codes: IntVector = pc.index_in(table.column(name), value_set=pa.array(values)).to_numpy().astype(np.int64)
    return codes


def _flags(table: Any, name: str, *, default: bool) -> BoolVector:
    filled = pc.fill_null(_column(table, name, pa.bool_()), default)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _objects(table: Any, name: str) -> npt.NDArray[np.object_]:
    values = np.empty(len(table), dtype=object)
    values[:] = _column(table, name, pa.string()).to_pylist()
    return values
