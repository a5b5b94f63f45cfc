"""Looking at a log: text, JSON and CSV, the views, and the browser in ``florlog.ui``.

Everything here reads in batches through `florlog_wal.Store.scan`: what a reader holds does not grow with the
log, except where a view says so.  Whatever a log holds is shown as text without control characters.
"""
