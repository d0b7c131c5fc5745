"""The orchestration patterns, one a file: functions that return uncompiled LangGraph graphs."""

from kapelle.graphs.hierarchy import hierarchy
from kapelle.graphs.manager_worker import manager_worker
from kapelle.graphs.marketplace import marketplace
from kapelle.graphs.pipeline import pipeline
from kapelle.graphs.swarm import swarm

__all__ = ["hierarchy", "manager_worker", "marketplace", "pipeline", "swarm"]
