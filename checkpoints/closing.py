"""What is closed when it is no longer needed: by name, or by leaving a `with`, sync or async."""

import asyncio
from types import TracebackType
from typing import Self

from kapelle.checkpoints.access import Access


class Closing:
    """Writes what was ordered, then lets go of the database."""

    _access: Access

    def close(self) -> None:
        """Write what was ordered and let go of the database."""
        self._access.close()

    async def aclose(self) -> None:
        """Write what was ordered and let go of the database."""
        await asyncio.to_thread(self._access.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
