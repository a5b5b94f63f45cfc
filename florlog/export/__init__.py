"""Values and states as files and in services that others read.

In comes a run as `florlog.reading` shows it.  Out come files.  **A new export is a module here.**
"""
