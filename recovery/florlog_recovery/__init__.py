"""Recovery: analysis of a log, redo plans, the resume point.  Pure functions over records."""

from .analysis import analyse
from .costs import CostModel, Measured, fitted
from .plan import (
    LoopPlan,
    NodePlan,
    Plan,
    Request,
    Stretch,
    plan_redo,
    resume_request,
)
from .request import boundary_request
from .split import Atoms, split
from .tree import Image, Loop, Node, RunTree
from .where import Condition, WhereError, state_name

__all__ = [
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
    "Request",
    "RunTree",
    "Stretch",
    "WhereError",
    "analyse",
    "boundary_request",
    "fitted",
    "plan_redo",
    "resume_request",
    "split",
    "state_name",
]
