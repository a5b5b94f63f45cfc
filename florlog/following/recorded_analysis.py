"""What the recorded source of a run says, for whoever plans; torch is not imported."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from florlog_recovery import RunTree
from florlog_wal import RunLog

from florlog.program.environment import is_hands_free
from florlog.program.recorded_sources import recorded_sources

if TYPE_CHECKING:
    from florlog.source.reach.regions import ProgramAnalysis


def recorded_analysis(log: RunLog, tree: RunTree) -> ProgramAnalysis | None:
    """The analysis; None where no script was recorded, or it is not to be understood."""
    from florlog.source.edit.recorded_reading import recorded_reading
    from florlog.source.names.syntax import SourceError, read_as
    from florlog.source.reach.regions import ProgramAnalysis

    sources = recorded_sources(log, tree)
    texts = {source.path: source.text for source in sources}
    script = next((source.path for source in sources if source.module == "__main__"), "")
    first = {path: texts[path] for path, _, _ in tree.begin.sources}
    try:
        how = recorded_reading(first, hands_free=is_hands_free(tree.begin.environment))
        with nullcontext() if how is None else read_as(how):
            return ProgramAnalysis(texts, script)
    except (SourceError, LookupError):
        return None
