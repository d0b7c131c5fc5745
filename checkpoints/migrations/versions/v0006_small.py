"""Less for the same: fewer and shorter marks, and rows of `writes` that hold small ones as well.

What else is new is how values lie in rows: numbers stand in the checkpoint itself, checkpoints are
folded, digests of payloads are shorter, what a cipher encrypts is tied to its place. Rows of
earlier versions stay as they are, and are read as they were.

Before deploying the new code: stop the old, which looks for marks of the old length.
"""

from hashlib import sha256

from alembic import op
from sqlalchemy import Column, column, delete, func, table, update

from kapelle.checkpoints.migrations.columns import DATA

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

EMPTY = sha256(b'["parents", {}]').digest()
"""The mark that nearly all checkpoints had: they are not nested."""


def upgrade() -> None:
    """Add the column; drop the one mark, cut the others."""
    op.add_column("kapelle_writes", Column("more", DATA))
    marks = table("kapelle_marks", column("mark"))
    op.execute(delete(marks).where(marks.c.mark == EMPTY))
    op.execute(update(marks).values(mark=func.substr(marks.c.mark, 1, 16)))
