"""A redo plan as people read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from florlog.following.trust import where
from florlog.hindsight.plan_view import PlanSegment, PlanView, Redo, RunBefore
from florlog.program.terminal import harmless

T = TypeVar("T")


def plan_text(view: PlanView) -> str:
    """The plan as a tree for a person."""
    total, redone = view["iterations_total"], view["iterations_redone"]
    actual = view.get("actual_seconds")
    took = "" if actual is None else f", took {_seconds(actual)}"
    lines = [
        f"plan for run {view['run']}",
        (
            f"  re-executes {redone} of {total} innermost iterations, predicted "
            f"{_seconds(view['predicted_seconds'])}{took}; a full rerun takes "
            f"{_seconds(view['full_rerun_seconds'])}"
        ),
    ]
    if view["answered_from_log"]:
        lines.append(f"  answered from the log, by earlier replays: {view['answered_from_log']} values")
    if view["answered_from_state"]:
        lines.append(f"  answered by a restored state alone: {view['answered_from_state']}")
    for skip in view["skips"]:
        times = f"; {skip['times']} times" if "times" in skip else ""
        place = f"{Path(skip['file']).name}:{skip['line']}"
        lines.append(f"  skips {skip['code']} ({place}): nothing asked for depends on it{times}")
    tree: list[list[str]] = []
    if view["segments"]:
        tree.append(
            [
                f"set-up of the script ({_seconds(view['setup_seconds'])})",
                *_shortened([_run_before(run) for run in view["runs_before"]], 6, str),
            ]
        )
    tree += [_segment_lines(segment) for segment in view["segments"]]
    for number, block in enumerate(_shortened(tree, 10, lambda text: [text])):
        last = number == min(len(tree), 10) - 1
        lines.append(f"  {'└─' if last else '├─'} {block[0]}")
        lines += [f"  {'  ' if last else '│ '}    {line}" for line in block[1:]]
    return harmless("\n".join(lines))


def _run_before(run: RunBefore) -> str:
    which = run["run"] or repr(run["name"])
    iterations = f"{run['redone']} iteration{'' if run['redone'] == 1 else 's'}"
    took = _seconds(run["predicted_seconds"])
    if run["part"] == "full":
        return f"before it, execute run {which} ({took}): {run['why']}"
    return f"before it, go to the end of run {which}, with {iterations} re-executed ({took})"


def _segment_lines(segment: PlanSegment) -> list[str]:
    at = "end" if segment["restore_at"] == "end" else "start"
    place = where(tuple(segment["restore"].items()))
    what = f"restore the {at} of {place}" if segment["restore"] else "from the run's start"
    actual = segment.get("actual_seconds")
    took = "" if actual is None else f", took {_seconds(actual)}"
    lines = [f"{what} ({_seconds(segment['predicted_seconds'])}{took})"]
    items = [_redo_text(item) for item in segment["redo"]]
    return lines + (items if len(items) <= 6 else [*items[:4], f"... {len(items) - 5} more", items[-1]])


def _redo_text(item: Redo) -> str:
    first, last = tuple(item["from"].items()), tuple(item["to"].items())
    asked = f", for {', '.join(dict.fromkeys(item['asked']))}" if item["asked"] else ", on the way"
    if item["part"] == "skipped":
        return f"skip {where(first)} to {last[-1][1]}, as nothing asked for depends on it"
    if item["part"] == "outer-only":
        return f"run {where(first)} around its loops{asked}"
    if item["part"] == "entry":
        return f"go to {where(first)}, to restore in it"
    if item["part"] == "prefix":
        return f"run {where(first)} up to the last statement{asked}"
    return f"run {where(first)}" + ("" if first == last else f" to {last[-1][1]}") + asked


def _shortened(blocks: list[T], limit: int, more: Callable[[str], T]) -> list[T]:
    if len(blocks) <= limit:
        return blocks
    head, tail = limit - 3, 2
    return [*blocks[:head], more(f"... {len(blocks) - head - tail} more"), *blocks[-tail:]]


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
