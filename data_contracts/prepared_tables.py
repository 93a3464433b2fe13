"""What preparation makes of a partner's tables, and what a model answers.

Why: training, evaluation and prediction rely on these without looking again. Runs: on the partner.
Source: own; the columns of MELLODDY's T8, T10 and T11 files.
"""

from data_contracts.contract import Contract, Field
from data_contracts.rules import (
    Between,
    Finite,
    LengthBetween,
    Matches,
    OneOf,
    RequiredWhen,
    RowNumber,
    SortedUniqueBelow,
    StrictlyIncreasing,
    Unique,
)
from data_contracts.vocabulary import (
    ASSAY_TYPES,
    DIRECTIONS,
    HASHED_BITS,
    LAST_FOLD,
    MAX_ENDPOINT_CHARACTERS,
    THRESHOLD_METHODS,
    identifier,
)

HASHED_FINGERPRINTS = Contract(
    name="hashed_fingerprints",
    version="1.1.0",
    description="A partner's prepared structures, one row for each parent; private.",
    fields=(
        Field("structure_index", "int32", description="row number"),
        Field("structure_key", "string", description="keyed digest of the parent structure"),
        Field("fold", "int8", description="0 test, 4 validation, 1 to 3 training"),
        Field("bits", "list<uint16>", description="set bits of the binary ECFP6, hashed to 32,768"),
        Field(
            "counts",
            "list<uint16>",
            nullable=True,
            optional=True,
            description="how often each of the bits occurs, in their order; empty for binary fingerprints",
        ),
    ),
    rules=(
        RowNumber("structure_index"),
        Matches("structure_key", "[0-9a-f]{32}"),
        Unique(("structure_key",)),
        Between("fold", 0, LAST_FOLD),
        SortedUniqueBelow("bits", HASHED_BITS),
    ),
)

FEATURIZED_STRUCTURES = Contract(
    name="featurized_structures",
    version="1.0.0",
    description="Structures of a partner's cache, as they were written, one row each; private.",
    fields=(
        Field("name", "string", description="keyed digest of the structure as written"),
        Field(
            "structure_key",
            "string",
            nullable=True,
            description="keyed digest of what makes it one structure",
        ),
        Field("parent_key", "string", nullable=True, description="keyed digest of its parent"),
        Field("fold", "int8", nullable=True, description="fold of its scaffold"),
        Field("reason", "string", nullable=True, description="why it has no parent"),
        Field("bits", "list<uint16>", description="set bits before any permutation"),
        Field("counts", "list<uint16>", description="how often each occurs; empty if nobody asked"),
    ),
    key=("name",),
    rules=(
        Matches("name", "[0-9a-f]{32}"),
        Matches("structure_key", "[0-9a-f]{32}"),
        Matches("parent_key", "[0-9a-f]{32}"),
        Between("fold", 0, LAST_FOLD),
        LengthBetween("reason", 1, 40),
        SortedUniqueBelow("bits", HASHED_BITS),
    ),
)

ENDPOINTS = Contract(
    name="endpoints",
    version="1.1.0",
    description="A partner's learnable columns, one row each; private.",
    fields=(
        Field("endpoint_index", "int32", description="row number; position in the head"),
        Field("endpoint_id", "string", description="assay, direction and threshold, such as ASSAY>=6.5"),
        Field("assay_id", "string", description="assay of the endpoint"),
        Field("assay_type", "string", description="type of the assay"),
        Field("threshold", "float64", unit="-log10(M)", description="activity threshold"),
        Field("direction", "string", description="which side of the threshold is active"),
        Field("n_active", "int32", description="structures with label 1"),
        Field("n_inactive", "int32", description="structures with label 0"),
        Field("in_training", "bool", description="meets the training quorum"),
        Field("in_evaluation", "bool", description="meets the evaluation quorum"),
        Field("weight", "float64", description="weight in the training loss"),
        Field(
            "threshold_method",
            "string",
            nullable=True,
            optional=True,
            description="where the threshold comes from",
        ),
        Field(
            "is_auxiliary", "bool", nullable=True, optional=True, description="trained, but never in means"
        ),
        Field(
            "catalogue_endpoint_id",
            "string",
            nullable=True,
            optional=True,
            description="shared name, if the endpoint is in the consortium's catalogue",
        ),
    ),
    key=("endpoint_id",),
    rules=(
        RowNumber("endpoint_index"),
        *identifier("endpoint_id", maximum=MAX_ENDPOINT_CHARACTERS),
        *identifier("assay_id"),
        OneOf("assay_type", ASSAY_TYPES),
        Finite("threshold"),
        OneOf("direction", DIRECTIONS),
        Between("n_active", 0, None),
        Between("n_inactive", 0, None),
        Finite("weight"),
        Between("weight", 0, None),
        OneOf("threshold_method", THRESHOLD_METHODS),
        *identifier("catalogue_endpoint_id"),
    ),
)

REGRESSION_ENDPOINTS = Contract(
    name="regression_endpoints",
    version="1.0.0",
    description="A partner's assays that are learned as numbers, one row each; private.",
    fields=(
        Field("endpoint_index", "int32", description="row number"),
        Field("endpoint_id", "string", description="name of the endpoint"),
        Field("assay_id", "string", description="assay of the endpoint"),
        Field("assay_type", "string", description="type of the assay"),
        Field("n_values", "int32", description="structures with a value"),
        Field("n_censored", "int32", description="of these, values that are bounds"),
        Field("in_evaluation", "bool", description="meets the evaluation quorum"),
        Field("weight", "float64", description="weight in the training loss"),
        Field("censored_weight", "float64", description="further weight of the values that are bounds"),
    ),
    key=("endpoint_id",),
    rules=(
        RowNumber("endpoint_index"),
        *identifier("endpoint_id", maximum=MAX_ENDPOINT_CHARACTERS),
        *identifier("assay_id"),
        OneOf("assay_type", ASSAY_TYPES),
        Between("n_values", 0, None),
        Between("n_censored", 0, None),
        Finite("weight"),
        Between("weight", 0, None),
        Between("censored_weight", 0, 1),
    ),
)

REGRESSION_VALUES = Contract(
    name="regression_values",
    version="1.0.0",
    description="A partner's numbers to learn, one row for each structure and regression endpoint, sorted; private.",
    fields=(
        Field("structure_index", "int32", description="row of hashed_fingerprints"),
        Field("endpoint_index", "int32", description="row of regression_endpoints"),
        Field("value", "float64", description="on the assay's scale, -log10(M) for concentrations"),
        Field("censoring", "int8", description="0 measured, 1 the truth lies above the value, -1 below"),
    ),
    rules=(
        Between("structure_index", 0, None),
        Between("endpoint_index", 0, None),
        Finite("value"),
        OneOf("censoring", (-1, 0, 1)),
        StrictlyIncreasing(("structure_index", "endpoint_index")),
    ),
)

LABELS = Contract(
    name="labels",
    version="1.0.0",
    description="A partner's training labels, one row for each structure and endpoint, sorted; private.",
    fields=(
        Field("structure_index", "int32", description="row of hashed_fingerprints"),
        Field("endpoint_index", "int32", description="row of endpoints"),
        Field("label", "int8", description="1 active, 0 inactive"),
    ),
    rules=(
        Between("structure_index", 0, None),
        Between("endpoint_index", 0, None),
        OneOf("label", (0, 1)),
        StrictlyIncreasing(("structure_index", "endpoint_index")),
    ),
)

PREDICTIONS = Contract(
    name="predictions",
    version="1.2.0",
    description="What a registered model answers, one row for each structure and endpoint: a probability or a value.",
    fields=(
        Field("smiles", "string", description="structure as it was asked"),
        Field("endpoint", "string", description="endpoint of the model"),
        Field(
            "probability",
            "float64",
            nullable=True,
            description="probability of active; empty for a regression endpoint",
        ),
        Field(
            "calibrated_probability",
            "float64",
            nullable=True,
            optional=True,
            description="probability of active, calibrated on the validation fold",
        ),
        Field(
            "conformal_set",
            "string",
            nullable=True,
            optional=True,
            description="classes that the model does not rule out",
        ),
        Field(
            "value",
            "float64",
            nullable=True,
            optional=True,
            description="of a regression endpoint, on the assay's scale, -log10(M) for concentrations",
        ),
        Field(
            "value_low",
            "float64",
            nullable=True,
            optional=True,
            description="lower end of the interval that holds the truth as often as promised",
        ),
        Field("value_high", "float64", nullable=True, optional=True, description="its upper end"),
        Field(
            "in_domain",
            "bool",
            nullable=True,
            optional=True,
            description="whether enough of the structure occurred in training",
        ),
        Field("valid", "bool", description="whether the structure could be featurized"),
        Field("reason", "string", nullable=True, description="why not, as a reason code"),
    ),
    rules=(
        LengthBetween("endpoint", 1, MAX_ENDPOINT_CHARACTERS),
        Between("probability", 0, 1),
        Between("calibrated_probability", 0, 1),
        OneOf("conformal_set", ("active", "inactive", "both", "neither")),
        Finite("value"),
        Finite("value_low"),
        Finite("value_high"),
        RequiredWhen("reason", flag="valid", state=False),
    ),
)
