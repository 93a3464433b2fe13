"""Values that never change, with what is worked out from them kept.

Why: a digest or the bytes under a signature are asked for many times, and a changed copy must not keep its original's.
Runs: anywhere. Source: own, on pydantic, whose ``model_copy`` copies all that an object holds and changes fields afterwards.
"""

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

Value = TypeVar("Value", bound=BaseModel)


class Frozen(BaseModel):
    """A model without unknown fields that is not changed; its ``cached_property`` values are not copied along."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @override
    def __copy__(self) -> Self:
        """Copy the fields alone."""
        return _without_derived(super().__copy__())

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the fields alone, and what they hold."""
        return _without_derived(super().__deepcopy__(memo))


def _without_derived(copied: Value) -> Value:
    for name in set(copied.__dict__) - set(type(copied).model_fields):
        del copied.__dict__[name]
    return copied
