"""Encryption at rest: nothing readable is stored, nothing that is not encrypted is read."""

import hashlib
import hmac
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from kapelle.checkpoints import Database
from kapelle.checkpoints.serde import StrictSerializer
from kapelle.state.errors import Unreadable
from kapelle.state.task import Task

AT: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": "c"}}
PRIVATE = "the name of the patient"


class Toy:
    """A cipher for tests: it keeps nothing secret from anybody who looks twice."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """Turn it, and say by whom."""
        turned = bytes(a ^ b for a, b in zip(plaintext, cycle(self._key), strict=False))
        return "toy", hmac.digest(self._key, turned, hashlib.sha256) + turned

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """Turn it back, if it is whole and of this key."""
        digest, turned = ciphertext[:32], ciphertext[32:]
        if not hmac.compare_digest(digest, hmac.digest(self._key, turned, hashlib.sha256)):
            raise ValueError("changed, or of another key")
        return bytes(a ^ b for a, b in zip(turned, cycle(self._key), strict=False))


def test_nothing_readable_is_in_the_file_and_all_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "encrypted.db"
    with Database(str(path), cipher=Toy(b"key of one")) as database:
        given = [Task(goal=PRIVATE), PRIVATE * 100]
        database.saver.put_writes(AT, [("channel", value) for value in given], "task")
        database.store.put(("people",), "one", {"name": PRIVATE})
        item = database.store.get(("people",), "one")
        assert item is not None
        assert item.value == {"name": PRIVATE}
        with database.connect() as connection:
            found = connection.exec_driver_sql("SELECT type FROM kapelle_writes").scalars().all()
        assert all("+toy" in kind for kind in found)
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert PRIVATE.encode() not in stored


@pytest.mark.parametrize("key", [None, b"another key"])
def test_what_is_not_encrypted_by_this_key_is_not_read(url: str, key: bytes | None) -> None:
    with Database(url, cipher=Toy(key) if key else None) as other:
        other.store.put(("people",), "one", {"name": PRIVATE})
        saver = other.saver
        saver.put(AT, empty_checkpoint(), {"source": "loop"}, {})
    with Database(url, cipher=Toy(b"key of one")) as database:
        with pytest.raises(Unreadable):
            database.saver.get_tuple({"configurable": {"thread_id": "t1", "checkpoint_ns": ""}})
        with pytest.raises(Unreadable):
            database.store.get(("people",), "one")


def test_what_is_encrypted_is_unreadable_without_the_key(url: str) -> None:
    with Database(url, cipher=Toy(b"key of one")) as database:
        kind, data = database.saver.serde.dumps_typed(PRIVATE)
    with pytest.raises(Unreadable):
        StrictSerializer().loads_typed((kind, data))
