"""The one door where a driver's errors become ours; the cause is kept."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kapelle.state.errors import DatabaseFailed


@contextmanager
def door(url: str) -> Iterator[None]:
    """Raise whatever SQLAlchemy raises as `DatabaseFailed`."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        why = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise DatabaseFailed(url=url, why=why) from error
