"""florlog: a database-style physiological log manager for Python training loops."""
