"""Keeping: everything that touches SQL. `Database` opens it; the rest hangs on that."""

from kapelle.checkpoints.database import Database

__all__ = ["Database"]
