"""Columns as migrations make them. What stands here is never changed, only added to.

A migration says itself what it makes and takes nothing from `tables`, which says what there is now:
else what a version was would change with the code.
"""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, String
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

DATA = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
HASH = LargeBinary(32).with_variant(mysql.VARBINARY(32), "mysql", "mariadb")
SEQ = BigInteger().with_variant(Integer(), "sqlite")
TIME = Float(53)


def name(length: int) -> TypeEngine[str]:
    """Text that equals only itself."""
    return (
        String(length)
        .with_variant(mysql.VARCHAR(length, collation="utf8mb4_nopad_bin"), "mariadb")
        .with_variant(mysql.VARCHAR(length, collation="utf8mb4_0900_bin"), "mysql")
    )


def key(title: str, kind: Any) -> Column[Any]:
    """A part of a table's key that nobody counts up."""
    return Column(title, kind, primary_key=True, autoincrement=False)


def needed(title: str, kind: Any) -> Column[Any]:
    """A column that is never empty."""
    return Column(title, kind, nullable=False)


def tenant() -> Column[Any]:
    """The first column of every key."""
    return key("tenant", name(64))


def make(title: str, *parts: SchemaItem, **options: Any) -> None:
    """Make a table; on MariaDB and MySQL in the engine that has transactions."""
    op.create_table(title, *parts, mysql_engine="InnoDB", mariadb_engine="InnoDB", **options)
