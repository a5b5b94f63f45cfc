"""Trees that are run in the place of a script's own, and the text of a notebook's program."""
