"""Words and bounds that several data contracts share.

Why: an assay type or a unit is spelled once. Runs: anywhere. Source: MELLODDY's T0 files for assay types and
directions, own for the others.
"""

from data_contracts.rules import LengthBetween, NoControlCharacters, Rule

MAX_ID_CHARACTERS = 200
MAX_ENDPOINT_CHARACTERS = 240  # an assay id, a direction and a threshold
MAX_SMILES_CHARACTERS = 5_000
HASHED_BITS = 32_768
LAST_FOLD = 4
ASSAY_TYPES = ("ADME", "PANEL", "CATALOG_PANEL", "OTHER", "AUX_HTS", "AUX_PL")
DIRECTIONS = ("high", "low", "both")
RELATIONS = ("=", "<", ">")
MOLAR_UNITS = ("M", "mM", "uM", "nM", "pM")
UNITS = ("p", "own", *MOLAR_UNITS)
THRESHOLD_METHODS = (
    "expert",
    "default",
    "fixed_adaptive",
    "median",
    "quartile",
    "fixed",
    "aux_low",
    "aux_high",
    "binary",
)
CATALOGUE_METHODS = ("expert", "aux_low", "aux_high")
THRESHOLDS = tuple(f"threshold_{i}" for i in range(1, 6))
LARGEST_CONCENTRATION = 1e30  # only the sign matters: a concentration at or below 0 has no logarithm
SMALLEST_CONCENTRATION = 1e-30
DATE = r"[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"


def identifier(column: str, *, maximum: int = MAX_ID_CHARACTERS) -> tuple[Rule, ...]:
    """Rules of a column of names: some characters, none of them invisible."""
    return (LengthBetween(column, 1, maximum), NoControlCharacters(column))
