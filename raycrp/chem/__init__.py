"""Molecules and reactions, with RDKit behind one door."""
