"""A process that spends as long as there is room, and may be killed at any time.

python spender.py URL BOOK CAP FILE: for each call it appends to FILE what it really spends, in the
middle of the call; then it settles.
"""

import asyncio
import os
import random
import sys
from uuid import uuid4

from kapelle.checkpoints import Database
from kapelle.state.budget import Budget, Envelope, Usage


async def spend(url: str, book: str, cap: int, file: str) -> None:
    """Until nothing fits any more."""
    lot = random.Random(os.getpid())
    envelopes = [Envelope("", Budget(tokens=cap)), Envelope(f"/agent {os.getpid()}", Budget())]
    async with Database(url) as database:
        out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        async def work() -> None:
            patience = 25  # whoever was killed holds what only a resumed run would charge
            while patience:
                most = lot.randint(20, 100)
                key = uuid4().hex
                wanted = Usage(output_tokens=most, calls=1)
                said = await database.ledger.reserve(book, key, wanted, envelopes)
                if said.fit == "never":
                    return
                if said.fit == "later":
                    patience -= 1
                    await asyncio.sleep(0.04)
                    continue
                patience = 25
                used = lot.randint(10, most)
                os.write(out, f"{used}\n".encode())  # it is spent now, whatever happens
                await asyncio.sleep(lot.random() / 50)
                await database.ledger.settle(book, key, Usage(output_tokens=used, calls=1))

        await asyncio.gather(*(work() for _ in range(3)))


if __name__ == "__main__":
    asyncio.run(spend(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
