"""How each rule is checked: one boolean mask per rule and batch, at memory speed where nothing is wrong.

Why: rules are data (rules.py); this is the one place that knows how to carry them out. Every check first asks
a cheap question of the whole batch and builds row masks only when the answer is bad. Runs: anywhere.
Source: own; the masks are proved against a row-wise oracle in tests/data_contracts.

A mask is True (n,) where a row breaks the rule; None says that no row does.
"""

from collections.abc import Callable, Mapping
from functools import partial, singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import rules
from data_contracts.columns import Bools, TextWords, bools, numbers, text_bytes, valid_rows
from data_contracts.encoded import ByDictionary, is_encoded, on_plain
from data_contracts.keys import KnownKeys, SeenKeys

Mask = Bools | None
Check = Callable[[Any], Mask]
FIRST_PRINTABLE = 0x20
DELETE = 0x7F
BY_DICTIONARY = (rules.OneOf, rules.Matches, rules.LengthBetween, rules.NoControlCharacters, rules.KnownIn)
INDIFFERENT = (rules.Required, rules.RequiredWhen, rules.Between, rules.BetweenWhen, rules.Finite)
CONTROL_CHARACTERS = r"[\x00-\x1f\x7f]"
WORD_BYTES = 8


def checks_for(
    all_rules: tuple[rules.Rule, ...], *, known_keys: Mapping[str, Any]
) -> tuple[list[tuple[rules.Rule, Check]], tuple[rules.Rule, ...]]:
    """Prepare the checks of a contract for one pass over one table.

    Args:
        all_rules: Rules in reporting order.
        known_keys: Foreign keys: column of this table -> ``pa.Array`` of the values it may hold.

    Returns:
        Pairs of rule and check, to be called with every batch in order (some keep state between batches),
        and the rules that stay unchecked because their foreign key was not given.
    """
    unchecked = [r for r in all_rules if isinstance(r, rules.KnownIn) and r.column not in known_keys]
    pairs = [(rule, _prepared(rule, known_keys=known_keys)) for rule in all_rules if rule not in unchecked]
    return pairs, tuple(unchecked)


def _prepared(rule: rules.Rule, *, known_keys: Mapping[str, Any]) -> Check:
    """Prepare the check of one rule; it takes plain and dictionary-encoded text."""
    check: Check
    if isinstance(rule, rules.KnownIn):
        check = partial(_unknown, KnownKeys(known_keys[rule.column]), rule.column)
    elif isinstance(rule, rules.Unique):
        check = partial(_repeated, SeenKeys(), rule.columns)
    elif isinstance(rule, rules.RowNumber):
        check = _RowNumbers(rule.column)
    elif isinstance(rule, rules.StrictlyIncreasing):
        check = _Order(rule.columns)
    else:
        check = partial(failing, rule)
    if isinstance(rule, BY_DICTIONARY):
        return ByDictionary(check, rule.column)
    return check if isinstance(rule, INDIFFERENT) else on_plain(check, rule.columns)


def _if_any(mask: Bools, *, array: Any) -> Mask:
    """Drop nulls from a mask of broken rows; None if nothing is left."""
    if array.null_count:
        mask = mask & valid_rows(array)
    return mask if mask.any() else None


@singledispatch
def failing(rule: rules.Rule, batch: Any) -> Mask:
    """Return the mask of a rule that needs no memory of earlier batches.

    Args:
        rule: The rule.
        batch: ``pa.RecordBatch`` of the contract's schema, fully validated.

    Raises:
        NotImplementedError: If the rule is not one of those.
    """
    raise NotImplementedError(f"rule {rule.kind} has no check")


@failing.register
def _(rule: rules.Required, batch: Any) -> Mask:
    array = batch.column(rule.column)
    return ~valid_rows(array) if array.null_count else None


@failing.register
def _(rule: rules.RequiredWhen, batch: Any) -> Mask:
    array, flag = batch.column(rule.column), batch.column(rule.flag)
    if not array.null_count:
        return None
    mask = ~valid_rows(array) & (bools(flag) == rule.state)
    return _if_any(mask, array=flag)


@failing.register
def _(rule: rules.OneOf, batch: Any) -> Mask:
    array = batch.column(rule.column)
    if not pa.types.is_string(array.type):
        values = numbers(array)
        among = np.zeros(len(values), dtype=np.bool_)
        for value in rule.values:  # a few: faster than a sort of the rows
            among |= values == value
        return _if_any(~among, array=array)
    return _if_any(~_text_among(array, rule.values), array=array)


def _text_among(array: Any, values: tuple[str | int, ...]) -> Bools:
    """Return True (n,) where a text is one of a few; texts of up to eight bytes are compared as one word."""
    encoded = [str(value).encode() for value in values]
    if not all(0 < len(value) <= WORD_BYTES and 0 not in value for value in encoded):
        return np.asarray(
            pc.is_in(array, value_set=pa.array(values)).to_numpy(zero_copy_only=False), dtype=np.bool_
        )
    text = TextWords(array)
    words = text.word(0)
    among = np.zeros(len(array), dtype=np.bool_)
    for value in encoded:
        among |= (words == np.uint64(int.from_bytes(value, "little"))) & (text.lengths == len(value))
    return among


@failing.register
def _(rule: rules.Between, batch: Any) -> Mask:
    array = batch.column(rule.column)
    values = numbers(array)
    if _all_inside(values, rule.minimum, rule.maximum):
        return None
    return _if_any(~_inside(values, rule.minimum, rule.maximum), array=array)


@failing.register
def _(rule: rules.BetweenWhen, batch: Any) -> Mask:
    array, condition = batch.column(rule.column), batch.column(rule.when)
    values = numbers(array)
    if _all_inside(values, rule.minimum, rule.maximum):
        return None
    outside = ~_inside(values, rule.minimum, rule.maximum)
    if is_encoded(condition):
        condition = pc.cast(condition, pa.string())
    return _if_any(outside & _text_among(condition, rule.among) & valid_rows(condition), array=array)


def _all_inside(values: npt.NDArray[Any], minimum: float | None, maximum: float | None) -> bool:
    """Tell from the extremes, without a mask; a NaN is an extreme of any array it stands in."""
    if len(values) == 0:
        return True
    low = minimum is None or bool(values.min() >= minimum)
    return low and (maximum is None or bool(values.max() <= maximum))


def _inside(values: npt.NDArray[Any], minimum: float | None, maximum: float | None) -> Bools:
    """Return True (n,) within the closed interval; NaN is never inside."""
    inside = np.ones(len(values), dtype=np.bool_) if minimum is None else values >= minimum
    if maximum is not None:
        inside &= values <= maximum
    return np.asarray(inside, dtype=np.bool_)


@failing.register
def _(rule: rules.Finite, batch: Any) -> Mask:
    array = batch.column(rule.column)
    return _if_any(~np.isfinite(numbers(array)), array=array)


@failing.register
def _(rule: rules.Matches, batch: Any) -> Mask:
    array = batch.column(rule.column)
    if array.null_count == len(array):  # an optional column that is not there
        return None
    matched = pc.match_substring_regex(array, rf"\A(?:{rule.pattern})\z")
    return _if_any(~bools(matched), array=array)


@failing.register
def _(rule: rules.LengthBetween, batch: Any) -> Mask:
    array = batch.column(rule.column)
    sizes = np.diff(text_bytes(array)[0])
    # A text has at most as many characters as bytes, and at least a quarter as many.
    if len(sizes) == 0 or (
        sizes.min() >= max(4 * rule.minimum - 3, rule.minimum) and sizes.max() <= rule.maximum
    ):
        return None
    characters = numbers(pc.utf8_length(array))
    return _if_any((characters < rule.minimum) | (characters > rule.maximum), array=array)


@failing.register
def _(rule: rules.NoControlCharacters, batch: Any) -> Mask:
    array = batch.column(rule.column)
    offsets, data = text_bytes(array)
    used = data[offsets[0] : offsets[-1]]
    if len(used) == 0 or (
        used.min() >= FIRST_PRINTABLE and (used.max() < DELETE or not (used == DELETE).any())
    ):
        return None
    return _if_any(bools(pc.match_substring_regex(array, CONTROL_CHARACTERS)), array=array)


@failing.register
def _(rule: rules.SortedUniqueBelow, batch: Any) -> Mask:
    array = batch.column(rule.column)
    offsets = numbers(array.offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(array) else (0, 0)
    elements = array.values.slice(first, last - first)
    values = numbers(elements)
    broken = values >= rule.bound
    if elements.null_count:
        broken |= ~valid_rows(elements)
    descends = np.zeros(len(values), dtype=np.bool_)
    descends[1:] = values[1:] <= values[:-1]
    starts = offsets[:-1] - first
    descends[starts[starts < len(values)]] = False  # the first element of a list has no predecessor
    broken |= descends
    if not broken.any():
        return None
    mask = np.zeros(len(array), dtype=np.bool_)
    mask[np.searchsorted(offsets, np.flatnonzero(broken) + first, side="right") - 1] = True
    return _if_any(mask, array=array)


def _unknown(known: KnownKeys, column: str, batch: Any) -> Mask:
    return known.strangers(batch.column(column))


def _repeated(seen: SeenKeys, columns: tuple[str, ...], batch: Any) -> Mask:
    return seen.repetitions([batch.column(column) for column in columns])


class _RowNumbers:
    """Check of ``row_number``: counts rows across batches."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._next = 0

    def __call__(self, batch: Any) -> Mask:
        array = batch.column(self._column)
        expected = np.arange(self._next, self._next + len(array))
        self._next += len(array)
        return _if_any(numbers(array) != expected, array=array)


class _Order:
    """Check of ``strictly_increasing``: remembers the last row of the batch before."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._last: int | None = None

    def __call__(self, batch: Any) -> Mask:
        if batch.num_rows == 0:
            return None
        position = np.zeros(batch.num_rows, dtype=np.int64)
        for column in self._columns:
            array = batch.column(column)
            filled = array.fill_null(0) if array.null_count else array
            position = (position << 32) + numbers(filled)
        mask = np.zeros(len(position), dtype=np.bool_)
        mask[1:] = position[1:] <= position[:-1]
        mask[0] = self._last is not None and position[0] <= self._last
        self._last = int(position[-1])
        return mask if mask.any() else None
