"""What was added to a recorded text, what was changed, and where a statement of one version goes in another."""
