"""Identifiers: stored exactly as they are, or refused. Never altered."""

from hashlib import sha256

from kapelle.state.errors import BadId


def exact(what: str, value: object, most: int = 255) -> str:
    """`value` itself if any database can hold it exactly, else `BadId`.

    >>> exact("thread", "t 1 ")
    't 1 '
    """
    if not isinstance(value, str):
        raise BadId(what=what, value=value, why=f"it is a {type(value).__name__}, not a text")
    if not value:
        raise BadId(what=what, value=value, why="it is empty")
    if len(value) > most:
        raise BadId(what=what, value=value[:40] + "…", why=f"it has more than {most} characters")
    if "\x00" in value or not (value.isascii() or _encodes(value)):
        raise BadId(what=what, value=value, why="it holds a character no database stores")
    return value


def _encodes(value: str) -> bool:
    try:
        return bool(value.encode())
    except UnicodeEncodeError:
        return False


def place(namespace: str) -> bytes:
    """The key of a namespace, which may be of any length: its SHA-256; empty at the root."""
    return sha256(raw(namespace)).digest() if namespace else b""


def raw(text: str) -> bytes:
    """Any text as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def text(data: bytes) -> str:
    """What `raw` was given."""
    return bytes(data).decode("utf-8", "surrogatepass")


def version(value: str | float) -> str:
    """A channel's version as text; `1` and `"1"` are two."""
    if isinstance(value, str):
        return exact("version", value, 63)
    return f"{type(value).__name__[0]}:{value}"
