"""Reading the program: what was added to it, what its loops change, where a statement can run."""
