"""Secure aggregation: the coordinator learns the survivors' sum of a vector, and nothing else of it."""
