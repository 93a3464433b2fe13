"""The named error behind a group of errors.

Why: when several tasks fail together, the first error of motet's own tree tells the cause. Runs: anywhere.
Source: own; exception groups, PEP 654.
"""

from data_contracts.errors import MotetError


def named_cause(error: BaseException) -> BaseException:
    """The first error of the tree in a group; the error itself if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        error = error.subgroup(MotetError) or error
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
