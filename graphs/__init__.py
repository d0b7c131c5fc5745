"""The orchestration patterns, one a file: functions that return uncompiled LangGraph graphs."""

from kapelle.graphs.manager_worker import manager_worker
from kapelle.graphs.pipeline import pipeline

__all__ = ["manager_worker", "pipeline"]
