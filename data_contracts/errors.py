"""The one error tree of motet.

Why: the command line turns every branch into an exit code and one line of advice, and a peer's bytes must
never end in a raw ``ValueError``. Runs: anywhere. Source: own.

::

    MotetError
    ├── ContractViolation        input does not match its Arrow data contract
    ├── SettingsError            a setting, argument or file the user gave cannot work
    ├── AgreementViolation       a plan asks for what the agreement or the partner's policy does not grant
    ├── PrivacyBudgetExhausted   the privacy ledger refuses
    ├── ProtocolError            a message or a peer breaks the protocol
    │   ├── Equivocation         two different messages under one identity
    │   ├── TooFewPartners       fewer partners answered than the threshold
    │   ├── UpdateMismatch       a vector, model or digest is not the one the plan fixes
    │   └── LedgerInconsistency  the ledger does not verify
    ├── WorkFailed               a piece of local work crashed, ran out of memory or out of time
    └── AuditFailed              a release gate said no

A message names who, got, expected and what to do next; never a structure, a value or a key.
"""


class MotetError(Exception):
    """Base of every error a user may meet.

    Attributes:
        exit_code: Process exit code of the command line for this branch.
        advice: One line that says what to do next.
    """

    exit_code: int = 1
    advice: str = "run again with --verbose and read the last lines of the log"

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        """Keep the message, and this instance's own advice if it has one."""
        super().__init__(message)
        if advice is not None:
            self.advice = advice


class ContractViolation(MotetError):
    """Input does not match its Arrow data contract."""

    exit_code = 3
    advice = "compare the file with the contract: `motet contracts NAME` lists columns, types and rules"


class SettingsError(MotetError):
    """A setting, argument or file that the user gave cannot work."""

    exit_code = 2
    advice = "see `motet COMMAND --help` for the arguments and an example"


class AgreementViolation(MotetError):
    """A plan asks for what the agreement or the partner's own policy does not grant."""

    exit_code = 4
    advice = "ask the data steward, or correct the plan; nothing was computed and nothing was sent"


class PrivacyBudgetExhausted(MotetError):
    """The privacy ledger refuses a further release."""

    exit_code = 5
    advice = "no release is possible within the agreed budget; the consortium must agree on a new one"


class ProtocolError(MotetError):
    """A message or a peer breaks the protocol."""

    exit_code = 6
    advice = "keep the mailbox as evidence and ask the named party; nothing of yours was released"


class Equivocation(ProtocolError):
    """Two different messages under one identity: evidence against its sender."""


class TooFewPartners(ProtocolError):
    """Fewer partners answered than the threshold; nothing was released."""

    exit_code = 7
    advice = "bring the missing partners back and run the same command again: it resumes"


class UpdateMismatch(ProtocolError):
    """A vector, model or digest is not the one the plan fixes."""


class LedgerInconsistency(ProtocolError):
    """The ledger does not verify."""


class WorkFailed(MotetError):
    """A piece of local work crashed, ran out of memory or out of time."""

    exit_code = 8
    advice = "raise the limit or free memory, then run the same command again: finished work is kept"


class AuditFailed(MotetError):
    """A release gate said no."""

    exit_code = 9
    advice = "read the audit report; the model stays unreleased"
