"""skip."""
