"""The round engine: plan, compute, protect, secure sum, combine, over the mailbox. It knows no study."""
