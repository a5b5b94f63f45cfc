"""Recovery: analysis of a log, redo plans, the resume point.  Pure functions over records."""

from florlog_recovery.analysis import analyse
from florlog_recovery.atoms import Atoms, boundary_atoms, resume_atoms
from florlog_recovery.condition_syntax import WhereError
from florlog_recovery.costs import CostModel, Measured, fitted
from florlog_recovery.plan import LoopPlan, NodePlan, Plan, Stretch, plan_redo, planned_restores
from florlog_recovery.resuming import last_restore, plan_resume
from florlog_recovery.split import AtomSequence, split
from florlog_recovery.tree import (
    AUDITED,
    BY_HOOKS,
    CACHED,
    DIFFERENT,
    EQUAL,
    FORCED,
    NOT_POSSIBLE,
    Audit,
    Image,
    Loop,
    Node,
    RunTree,
)
from florlog_recovery.walk import Enterable, has_images, no_loop
from florlog_recovery.where import Condition, state_name

__all__ = [
    "AUDITED",
    "BY_HOOKS",
    "CACHED",
    "DIFFERENT",
    "EQUAL",
    "FORCED",
    "NOT_POSSIBLE",
    "AtomSequence",
    "Atoms",
    "Audit",
    "Condition",
    "CostModel",
    "Enterable",
    "Image",
    "Loop",
    "LoopPlan",
    "Measured",
    "Node",
    "NodePlan",
    "Plan",
    "RunTree",
    "Stretch",
    "WhereError",
    "analyse",
    "boundary_atoms",
    "fitted",
    "has_images",
    "last_restore",
    "no_loop",
    "plan_redo",
    "plan_resume",
    "planned_restores",
    "resume_atoms",
    "split",
    "state_name",
]
