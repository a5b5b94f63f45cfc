"""A recording followed: a script is executed again, and each step is compared with the log.

In come a run tree, a plan and what the script does.  Out come the next iteration to run, the images to restore,
the values that were found, and how far each can be trusted.  What the script does with files goes through `sandbox`,
and `hidden_files` hides `files_made` from it.  The room does not know why a question was asked, and it writes no
record.  **A new rule of trust goes here**, in `trust.RULES`.
"""
