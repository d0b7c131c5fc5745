"""No statement is built from what anybody gave: SQL as text stands in few places, all of them here.

Everything else is SQLAlchemy's expressions, with what is given bound to parameters.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import kapelle.checkpoints

ROOT = Path(kapelle.checkpoints.__path__[0])

RUNS = {
    "execute",
    "executemany",
    "exec_driver_sql",
    "scalar",
    "scalars",
    "execute_sql",
    "_run_once",
    "Compiled",
}
"""What sends a statement to the database."""

WRITES = {"text", "literal_column", "TextClause", "SQL"}
"""What makes a part of a statement of a text."""

ALLOWED = {
    "doctor.py": {
        "PRAGMA journal_mode",
        "PRAGMA synchronous",
        "PRAGMA quick_check(1)",
        "SHOW VARIABLES WHERE Variable_name IN ({names})",  # of the constant above it
        (
            "SELECT table_name, column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
        ),
    },
    "engine.py": {
        'SET search_path TO "{schema}"',  # an `identifier`
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off",
        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
        "SET SESSION {parts} = 4294967295",  # one of two constants
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "BEGIN IMMEDIATE",
        "BEGIN",
    },
    "sending.py": {"BEGIN IMMEDIATE"},
    "tables.py": {"0"},
    "migrations/versions/v0004_mended.py": {"''"},
    "migrations/versions/v0005_order.py": {"{columns} > 0"},  # of the constant above it
}
"""Texts that are sent, by file; in braces what is put into them."""


def sent(tree: ast.AST) -> Iterator[str]:
    """The texts that a module sends, or makes parts of statements of."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
        for alias in node.names
    }
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else None
        if isinstance(call.func, ast.Name):
            name = call.func.id
        if name in RUNS or (name in WRITES and name in imported):
            yield from (said for argument in call.args for said in texts(argument))


def texts(argument: ast.expr) -> Iterator[str]:
    """The texts an argument may be."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value
    elif isinstance(argument, ast.JoinedStr):
        yield "".join(map(part, argument.values))
    elif isinstance(argument, ast.IfExp):
        yield from texts(argument.body)
        yield from texts(argument.orelse)
    elif isinstance(argument, ast.BinOp):
        yield ast.unparse(argument)


def part(of: ast.expr) -> str:
    if isinstance(of, ast.Constant):
        return str(of.value)
    names = (node.id for node in ast.walk(of) if isinstance(node, ast.Name))
    return "{" + next(names, "") + "}"


def test_sql_as_text_stands_where_it_is_known_and_holds_what_is_known() -> None:
    found = {
        str(path.relative_to(ROOT)): said
        for path in sorted(ROOT.rglob("*.py"))
        if (said := set(sent(ast.parse(path.read_text()))))
    }
    assert found == ALLOWED


def test_what_would_be_built_of_a_name_is_found() -> None:
    built = "connection.execute(text(f\"SELECT * FROM t WHERE name = '{name}'\"))"
    tree = ast.parse(f"from sqlalchemy import text\n{built}\ncursor.execute('DROP ' + name)")
    assert set(sent(tree)) == {"SELECT * FROM t WHERE name = '{name}'", "'DROP ' + name"}
