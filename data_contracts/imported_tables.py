"""Tables that motet imports: MELLODDY's T0, T1, T2 and T_cat by their original headers, and long extracts.

Why: a partner brings what it already has; further columns are passed over, not refused. Runs: on the partner.
Source: MELLODDY-TUNER 3 (``validate_T0``, ``validate_T1``, ``validate_T2``) for headers and domains; own for LONG.
"""

from data_contracts.contract import Contract, Field
from data_contracts.rules import Finite, Matches, OneOf
from data_contracts.vocabulary import DATE, MAX_SMILES_CHARACTERS, identifier

MELLODDY_TYPES = ("ADME", "NON-CATALOG-PANEL", "CATALOG-PANEL", "OTHER", "AUX_HTS", "AUX_PL")
QUALIFIERS = {"<": "<", "<=": "<", "<<": "<", ">": ">", ">=": ">", ">>": ">", "=": "=", "~": "="}
EXPERT_THRESHOLDS = tuple(f"expert_threshold_{number}" for number in range(1, 6))


def _optional(name: str, kind: str, description: str) -> Field:
    return Field(name, kind, nullable=True, optional=True, description=description)


MELLODDY_T0 = Contract(
    name="melloddy_t0",
    version="1.0.0",
    description="MELLODDY's assays.",
    fields=(
        Field("input_assay_id", "string", description="name of the assay"),
        Field("assay_type", "string", description="what kind of assay it is"),
        Field("use_in_regression", "bool", description="may be learned as numbers"),
        Field("is_binary", "bool", description="results are +1 or -1"),
        *(_optional(name, "float64", "activity threshold") for name in EXPERT_THRESHOLDS),
        _optional("direction", "string", "which side of a threshold is active"),
        _optional("catalog_assay_id", "float64", "number of the assay in the catalogue"),
    ),
    key=("input_assay_id",),
    rules=(
        *identifier("input_assay_id"),
        OneOf("assay_type", MELLODDY_TYPES),
        *(Finite(name) for name in EXPERT_THRESHOLDS),
        OneOf("direction", ("high", "low")),
        Finite("catalog_assay_id"),
    ),
)

MELLODDY_T1 = Contract(
    name="melloddy_t1",
    version="1.0.0",
    description="MELLODDY's activities, on the p-scale for all but ADME and auxiliary assays.",
    fields=(
        Field("input_compound_id", "string", description="name of the compound"),
        Field("input_assay_id", "string", description="name of the assay"),
        _optional("standard_qualifier", "string", "relation; empty means measured"),
        Field("standard_value", "float64", description="the measurement"),
    ),
    rules=(
        *identifier("input_compound_id"),
        *identifier("input_assay_id"),
        OneOf("standard_qualifier", tuple(QUALIFIERS)),
        Finite("standard_value"),
    ),
)

MELLODDY_T2 = Contract(
    name="melloddy_t2",
    version="1.0.0",
    description="MELLODDY's structures.",
    fields=(
        Field("input_compound_id", "string", description="name of the compound"),
        Field("smiles", "string", description="structure"),
    ),
    key=("input_compound_id",),
    rules=(*identifier("input_compound_id"), *identifier("smiles", maximum=MAX_SMILES_CHARACTERS)),
)

MELLODDY_T_CAT = Contract(
    name="melloddy_t_cat",
    version="1.0.0",
    description="MELLODDY's catalogue of commercial panels; its first row's thresholds hold for all of them.",
    fields=(
        Field("catalog_assay_id", "float64", description="number of the assay in the catalogue"),
        Field("catalog_task_id", "float64", description="number of the endpoint in the catalogue"),
        Field("threshold", "float64", description="activity threshold"),
        Field("threshold_method", "string", description="expert, aux_low or aux_high"),
        *(_optional(name, "float64", "activity threshold") for name in EXPERT_THRESHOLDS),
    ),
    rules=(
        Finite("catalog_assay_id"),
        Finite("catalog_task_id"),
        Finite("threshold"),
        OneOf("threshold_method", ("expert", "aux_low", "aux_high")),
    ),
)

LONG = Contract(
    name="long",
    version="1.0.0",
    description="An extract of a warehouse, one measurement a row, in whatever units.",
    fields=(
        Field("compound_id", "string", description="name of the compound"),
        Field("assay_id", "string", description="name of the assay"),
        Field("value", "float64", description="the measurement, in the row's unit"),
        _optional("unit", "string", "as written: nM, uM, %, ..."),
        _optional("relation", "string", "as written; empty means measured"),
        Field("measurement_type", "string", description="IC50, Ki, pIC50, Inhibition, ..."),
        _optional("measured_on", "string", "date of the measurement, YYYY-MM-DD"),
    ),
    rules=(
        *identifier("compound_id"),
        *identifier("assay_id", maximum=150),
        Finite("value"),
        OneOf("relation", tuple(QUALIFIERS)),
        *identifier("measurement_type", maximum=40),
        Matches("measured_on", DATE),
    ),
)

__all__ = ["LONG", "MELLODDY_T0", "MELLODDY_T1", "MELLODDY_T2", "MELLODDY_T_CAT", "QUALIFIERS"]
