"""What agents, models and people said, as it lies in rows: encrypted where there is a cipher.

Values of the saver and the store go through the serializer; this is for all else. What rows are
found by stays readable: ids, states, times, counts, names that stand in the code, and hashes.
"""

import os
from dataclasses import dataclass
from typing import Any, TypeVar

from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from pydantic import BaseModel
from sqlalchemy import Connection

from kapelle.checkpoints.plain import dump_noun, load, load_noun
from kapelle.state.errors import Misbuilt, Unreadable

M = TypeVar("M", bound=BaseModel)

MARK = b"\xffsecret\x00"
"""How what is encrypted begins; no text does."""

VARIABLE = "KAPELLE_AES_KEY"
"""What holds the key where a database is named by its URL alone."""

OPTION = "kapelle_secret"
"""What connections know it by."""


Cipher = CipherProtocol | EncryptedSerializer
"""What encrypts, or what LangGraph wraps it in."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Hides what is written, and shows it again to who has the cipher."""

    cipher: CipherProtocol | None = None

    @classmethod
    def by(cls, cipher: Cipher | None) -> "Secret":
        """That of a cipher, if there is one."""
        return cls(cipher.cipher if isinstance(cipher, EncryptedSerializer) else cipher)

    @classmethod
    def of(cls, connection: Connection) -> "Secret":
        """That of the database a connection leads to."""
        secret: Secret = connection.get_execution_options()[OPTION]
        return secret

    def hide(self, data: bytes) -> bytes:
        """Bytes as they are stored."""
        if self.cipher is None:
            return data
        name, hidden = self.cipher.encrypt(data)
        return MARK + name.encode() + b"\x00" + hidden

    def show(self, data: bytes, thread: str = "?") -> bytes:
        """What `hide` was given; `Unreadable` if it is not encrypted by this cipher and key."""
        data = bytes(data)
        if self.cipher is None and not data.startswith(MARK):
            return data
        if self.cipher is None:
            raise Unreadable(thread=thread, why="it is encrypted, and Database has no cipher=")
        if not data.startswith(MARK):
            raise Unreadable(thread=thread, why="it is not encrypted")
        name, _, hidden = data.removeprefix(MARK).partition(b"\x00")
        try:
            return self.cipher.decrypt(name.decode(), hidden)
        except Exception as error:
            raise Unreadable(thread=thread, why=str(error) or type(error).__name__) from error

    def noun(self, noun: BaseModel) -> bytes:
        """A noun as it is stored."""
        return self.hide(dump_noun(noun))

    def shown_noun(self, kind: type[M], data: bytes, thread: str = "?") -> M:
        """What `noun` was given; `Unreadable` if it is not that."""
        try:
            return load_noun(kind, self.show(data, thread))
        except ValueError as error:
            raise Unreadable(thread=thread, why=f"it is no {kind.__name__}") from error

    def shown_json(self, data: bytes, thread: str = "?") -> Any:
        """JSON that was hidden; `Unreadable` if it is none."""
        try:
            return load(self.show(data, thread))
        except ValueError as error:
            raise Unreadable(thread=thread, why="it is no JSON") from error


def aes() -> Cipher | None:
    """AES with the key that the environment holds; None if it holds none."""
    key = os.environ.get(VARIABLE, "").encode()
    if not key:
        return None
    if len(key) not in (16, 24, 32):
        raise Misbuilt(f"{VARIABLE} has {len(key)} bytes; an AES key has 16, 24 or 32")
    try:
        return EncryptedSerializer.from_pycryptodome_aes(key=key)
    except ImportError as error:
        raise Misbuilt(f"{VARIABLE} is set: pip install 'kapelle[encryption]'") from error
