"""carry."""
