"""Drills: a scripted model behind a real socket and a virtual clock; users test with them too."""

from kapelle.drills.answers import (
    Call,
    Cut,
    Garbage,
    NoUsage,
    RateLimited,
    Request,
    ServerError,
    Slow,
    Truncated,
)
from kapelle.drills.clock import VirtualClock
from kapelle.drills.openai_server import LoopbackModel

__all__ = [
    "Call",
    "Cut",
    "Garbage",
    "LoopbackModel",
    "NoUsage",
    "RateLimited",
    "Request",
    "ServerError",
    "Slow",
    "Truncated",
    "VirtualClock",
]
