"""Simulated companies: real molecules, simulated assays, and public tables split into companies."""
