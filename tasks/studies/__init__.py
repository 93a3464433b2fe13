"""The studies that exist: each is two pure functions over the round engine."""
