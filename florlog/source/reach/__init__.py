"""In which segments of an iteration a statement can run."""
