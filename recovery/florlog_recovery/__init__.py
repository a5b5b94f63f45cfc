"""Recovery: analysis of a log, redo plans, the resume point.  Pure functions over records."""

from .analysis import analyse
from .atoms import boundary_atoms
from .costs import CostModel, Measured, fitted
from .plan import (
    Atoms,
    LoopPlan,
    NodePlan,
    Plan,
    Stretch,
    plan_redo,
    resume_atoms,
)
from .split import AtomSequence, split
from .tree import Image, Loop, Node, RunTree
from .where import Condition, WhereError, state_name

__all__ = [
    "AtomSequence",
    "Atoms",
    "Condition",
    "CostModel",
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
    "plan_redo",
    "resume_atoms",
    "split",
    "state_name",
]
