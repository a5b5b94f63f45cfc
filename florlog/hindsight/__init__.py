"""hindsight."""
