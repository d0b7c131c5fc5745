"""Kapelle conducts many AI agents toward one goal, as LangGraph graphs kept in SQL."""

from kapelle.checkpoints.database import Database
from kapelle.nodes.agent import agent, as_agent
from kapelle.nodes.model import ModelAgent
from kapelle.runs import Run, Runs, arun, run
from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Budget
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Plan, Reply, Task
from kapelle.state.verdict import Verdict

__all__ = [
    "Approval",
    "Brief",
    "Budget",
    "Database",
    "Escalation",
    "ModelAgent",
    "Plan",
    "Policy",
    "Reply",
    "Run",
    "Runs",
    "Task",
    "Verdict",
    "agent",
    "arun",
    "as_agent",
    "run",
]
