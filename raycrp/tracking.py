"""Metrics out of a run: JSON Lines and TensorBoard."""
