"""Code that a replay need not execute, because nothing that is asked for depends on it."""
