"""Recovery: analysis of a log, redo plans, the resume point.  Pure functions over records."""

from .analysis import analyse
from .plan import (
    CostModel,
    LoopPlan,
    NodePlan,
    Plan,
    Request,
    Stretch,
    plan_redo,
    resume_request,
)
from .tree import Image, Loop, Node, RunTree
from .where import Condition, WhereError

__all__ = [
    "Condition",
    "CostModel",
    "Image",
    "Loop",
    "LoopPlan",
    "Node",
    "NodePlan",
    "Plan",
    "Request",
    "RunTree",
    "Stretch",
    "WhereError",
    "analyse",
    "plan_redo",
    "resume_request",
]
