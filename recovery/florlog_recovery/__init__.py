"""Recovery: analysis of a log, redo plans, the resume point.  Pure functions over records."""
