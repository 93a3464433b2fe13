"""What a partner brings: its assays, its activities, its structures; and the consortium's catalogue.

Why: these are the tables that people write, so each column says what it means. Runs: on the partner.
Source: MELLODDY's T0, T1, T2 and T_cat files, with string identifiers and units.
"""

from data_contracts.contract import Contract, Field
from data_contracts.rules import BetweenWhen, Finite, KnownIn, Matches, OneOf
from data_contracts.vocabulary import (
    ASSAY_TYPES,
    CATALOGUE_METHODS,
    DATE,
    DIRECTIONS,
    LARGEST_CONCENTRATION,
    MAX_SMILES_CHARACTERS,
    MOLAR_UNITS,
    RELATIONS,
    SMALLEST_CONCENTRATION,
    THRESHOLDS,
    UNITS,
    identifier,
)

ASSAYS = Contract(
    name="assays",
    version="1.1.0",
    description="A partner's measurement protocols, one row each.",
    fields=(
        Field("assay_id", "string", description="the partner's own name of the assay; stays at the partner"),
        Field("assay_type", "string", description="what kind of assay it is"),
        Field(
            "direction",
            "string",
            description="which side of a threshold is active: high means value >= threshold, both its magnitude",
        ),
        *(
            Field(
                name,
                "float64",
                nullable=True,
                optional=True,
                unit="-log10(M)",
                description="activity threshold",
            )
            for name in THRESHOLDS
        ),
        Field(
            "is_binary",
            "bool",
            nullable=True,
            optional=True,
            description="results are +1 or -1; empty means no",
        ),
        Field(
            "use_in_regression",
            "bool",
            nullable=True,
            optional=True,
            description="may be learned as numbers; empty means yes",
        ),
        Field(
            "catalogue_assay_id",
            "string",
            nullable=True,
            optional=True,
            description="the assay's shared name in the consortium's catalogue",
        ),
    ),
    key=("assay_id",),
    rules=(
        *identifier("assay_id"),
        OneOf("assay_type", ASSAY_TYPES),
        OneOf("direction", DIRECTIONS),
        *(Finite(name) for name in THRESHOLDS),
        *identifier("catalogue_assay_id"),
    ),
)

CATALOGUE = Contract(
    name="catalogue",
    version="1.0.0",
    description="Commercial assays that several partners run: their thresholds and the endpoints that they share.",
    fields=(
        Field("catalogue_assay_id", "string", description="shared name of the assay"),
        Field(
            "catalogue_endpoint_id",
            "string",
            nullable=True,
            description="shared name of the endpoint; empty if no head is shared at this threshold",
        ),
        Field("threshold", "float64", unit="-log10(M)", description="activity threshold"),
        Field("threshold_method", "string", description="expert counts in means, the others are auxiliary"),
    ),
    rules=(
        *identifier("catalogue_assay_id"),
        *identifier("catalogue_endpoint_id"),
        Finite("threshold"),
        OneOf("threshold_method", CATALOGUE_METHODS),
    ),
)

ACTIVITIES = Contract(
    name="activities",
    version="1.1.0",
    description="A partner's measurements, one row each; a compound may be measured repeatedly.",
    fields=(
        Field(
            "compound_id",
            "string",
            description="the partner's own name of the compound; stays at the partner",
        ),
        Field("assay_id", "string", description="assay of the measurement"),
        Field("relation", "string", description="= measured, < or > censored"),
        Field("value", "float64", description="the measurement, in the row's unit"),
        Field("unit", "string", description="p means already -log10(M), own the assay's own scale"),
        Field(
            "measured_on",
            "string",
            nullable=True,
            optional=True,
            description="date of the measurement, YYYY-MM-DD",
        ),
    ),
    rules=(
        *identifier("compound_id"),
        *identifier("assay_id"),
        OneOf("relation", RELATIONS),
        Finite("value"),
        OneOf("unit", UNITS),
        BetweenWhen("value", SMALLEST_CONCENTRATION, LARGEST_CONCENTRATION, when="unit", among=MOLAR_UNITS),
        KnownIn("compound_id", "structures", "compound_id"),
        KnownIn("assay_id", "assays", "assay_id"),
        Matches("measured_on", DATE),
    ),
)

STRUCTURES = Contract(
    name="structures",
    version="1.0.0",
    description="A partner's compounds and their structures, one row each.",
    fields=(
        Field(
            "compound_id",
            "string",
            description="the partner's own name of the compound; stays at the partner",
        ),
        Field("smiles", "string", description="structure; whether it parses is decided by featurization"),
    ),
    key=("compound_id",),
    rules=(*identifier("compound_id"), *identifier("smiles", maximum=MAX_SMILES_CHARACTERS)),
)
