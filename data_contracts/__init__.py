"""WHAT may cross a boundary: Arrow contracts, plans, envelopes and the error tree."""
