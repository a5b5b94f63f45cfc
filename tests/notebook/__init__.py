"""Notebooks, in real IPython shells."""
