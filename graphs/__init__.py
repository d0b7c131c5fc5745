"""The orchestration patterns: one a file, each a function that returns an uncompiled LangGraph graph."""

from kapelle.graphs.manager_worker import manager_worker
from kapelle.graphs.pipeline import pipeline

__all__ = ["manager_worker", "pipeline"]
