"""Loops that are not florlog's own, turned into transactions.

In come loops of unmodified scripts and of frameworks.  Out come calls of `florlog.recording`.  `plain_loops`
serves the loops of a script that never heard of florlog; `manifests` lists the frameworks whose own loops are taken so
(``specs/adoption.md``); `other_trackers` says what becomes in a replay of what the script tells other trackers.  **The
bridge to a framework is an entry in `manifests`, or a module here.**
"""
