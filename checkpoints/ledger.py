"""The ledger: accounts and reservations in SQL, posted together by the desk.

All that is to be reserved or settled while the desk is at work goes in one posting: the accounts
are read once, the laws of `kapelle.state.budget` are applied in order, the accounts are written
once. Whoever posts to a book first locks its run's account, so that processes come one after the
other; locks are taken in the order of the books' names, and after all other statements.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from hashlib import sha256
from operator import attrgetter, itemgetter

from sqlalchemy import Connection, bindparam, delete, select

from kapelle.checkpoints.access import Access
from kapelle.checkpoints.clock import db_now
from kapelle.checkpoints.compiled import Found, Row
from kapelle.checkpoints.desk import Order
from kapelle.checkpoints.ids import exact, raw, text
from kapelle.checkpoints.statements import Query, keep_first, replace, same
from kapelle.checkpoints.tables import HASH, accounts, spends
from kapelle.checkpoints.values import chunks
from kapelle.state.budget import Balance, Budget, Envelope, Room, Spend, Usage, room

OPEN = keep_first(accounts)
POST = replace(accounts)
HOLD = replace(spends, at=db_now())

_here = accounts.c.tenant == bindparam("of_tenant")
_there = spends.c.tenant == bindparam("of_tenant")

LOCKED = Query(
    lambda among: (
        select(accounts)
        .where(_here, accounts.c.account == bindparam("of_run", type_=HASH))
        .where(among(accounts.c.thread, "books"))
        .order_by(accounts.c.thread)
        .with_for_update()
    )
)
"""The accounts of runs, locked in the order of their books' names."""

ACCOUNTS = Query(
    lambda among: select(accounts).where(
        _here, among(accounts.c.thread, "books"), among(accounts.c.account, "names")
    )
)

ENTRIES = Query(
    lambda among: select(spends).where(
        _there, among(spends.c.thread, "books"), among(spends.c.key, "keys")
    )
)

FORGET = same(
    delete(spends).where(
        _there, *(spends.c[name] == bindparam(f"of_{name}") for name in ("thread", "key"))
    )
)

HELD, CHARGED, GRANTED = range(3)
"""How an entry stands: reserved; charged in full, because who reserved it died; a grant."""

_COUNTS = tuple(each.name for each in fields(Balance))
_VALUES = attrgetter(*_COUNTS)
_STOOD = itemgetter(*_COUNTS)
_EMPTY: tuple[int, ...] = _VALUES(Balance())
_RUN = sha256(b"").digest()
"""The key of a run's own account."""

Key = tuple[str, bytes]
"""A book, and the hash of an account's or a reservation's name."""


@dataclass(slots=True)
class _Wish:
    """What is to be reserved (with envelopes) or settled (without)."""

    book: str
    name: str
    usage: Usage
    envelopes: tuple[Envelope, ...]
    worked: Mapping[str, int]
    key: Key = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.book, _hash(self.name)


class SqlLedger:
    """The port `kapelle.nodes.services.Ledger`, in SQL."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._post = partial(_post, access.tenant, {})

    async def open(self, book: str, run: str = "") -> None:
        """Begin a book anew, if it is not that of `run` already."""
        exact("thread", book)
        await self._access.awrite(partial(_open, self._access.tenant, book, run))

    async def reserve(
        self,
        book: str,
        key: str,
        wanted: Usage,
        envelopes: Sequence[Envelope],
        worked: Mapping[str, int] | None = None,
    ) -> Room:
        """Set `wanted` aside in all envelopes or none; where there is no limit it never waits."""
        wish = _Wish(book, key, wanted, tuple(envelopes), worked or {})
        order: Order[Room] = Order(shared=(self._post, wish))
        if any(envelope.budget.bounded for envelope in envelopes):
            return await self._access.desk.ado(order)
        self._access.desk.leave(order)
        return Room("fits")

    async def settle(
        self, book: str, key: str, actual: Usage, worked: Mapping[str, int] | None = None
    ) -> None:
        """Book what was used in place of what was reserved. Never waits."""
        wish = _Wish(book, key, actual, (), worked or {})
        self._access.desk.leave(Order(shared=(self._post, wish)))

    async def charge(self, book: str) -> None:
        """Book in full what is reserved."""
        await self._access.awrite(partial(_charge, self._access.tenant, book))

    async def grant(self, book: str, more: Budget, account: str = "", key: str = "") -> None:
        """Raise the limit of an account, once for a key."""
        wish = _Wish(book, f"{key} {account}" if key else "", Usage(), (), {})
        await self._access.awrite(partial(_grant, self._access.tenant, wish, account, more))

    async def balance(self, book: str, account: str = "") -> Balance:
        """What stands in an account."""
        look = partial(_balance, tenant=self._access.tenant, key=(book, _hash(account)))
        return await self._access.aread(look)

    async def held(self, book: str) -> list[Spend]:
        """The reservations whose outcome is not known, by key."""
        return await self._access.aread(partial(_held, tenant=self._access.tenant, book=book))

    async def spent(self, book: str) -> Usage:
        """All that counts against the run's budget."""
        return (await self.balance(book)).counted


class _Posting:
    """What stands in some books, as read under their locks, and what changes."""

    def __init__(
        self, connection: Connection, tenant: str, known: "dict[Key, _Entry] | None" = None
    ) -> None:
        """`known`: reservations as this process made them, which then need not be read again."""
        self._connection = connection
        self._tenant = tenant
        self._known = {} if known is None else known
        self._mine: Row = {"of_tenant": tenant}
        self._rows: dict[Key, Row] = {}
        self._stood: dict[Key, tuple[int, ...]] = {}
        self._balances: dict[Key, Balance] = {}
        self._entries: dict[Key, _Entry] = {}
        self._gone: set[Key] = set()
        self._new: dict[Key, _Entry] = {}

    def lock(self, books: Iterable[str]) -> None:
        """Keep others away from these books until the transaction ends."""
        for some in chunks(sorted(set(books))):
            if missing := set(some) - self._locked(some):
                rows = [self._fresh(book, "") | _counts(Balance()) for book in sorted(missing)]
                OPEN.run(self._connection, rows)
                self._locked(some)

    def read(self, keys: Iterable[Key]) -> None:
        """The reservations of these keys that are there."""
        wanted = set(keys)
        books = sorted({book for book, _ in wanted})
        for some in chunks(sorted({key for _, key in wanted})):
            for row in ENTRIES.rows(self._connection, self._mine, books=books, keys=some):
                key = row["thread"], bytes(row["key"])
                mine = self._known.get(key)
                same_yet = mine is not None and mine.state == row["state"]
                self._entries[key] = mine if mine is not None and same_yet else _Entry.of(row)
        for key in wanted - self._entries.keys():  # its book was opened anew meanwhile
            self._known.pop(key, None)

    def read_all(self, book: str) -> list["_Entry"]:
        """All reservations of a book."""
        mine = (spends.c.tenant == self._tenant) & (spends.c.thread == book)
        rows = self._connection.execute(select(spends).where(mine)).mappings()
        return [_Entry.of(row) for row in rows]

    def fetch(self, names: Iterable[tuple[str, str]]) -> None:
        """These accounts of books that are locked; what is not there is empty."""
        wanted = {(book, _hash(name)): name for book, name in names}
        missing = [key for key in wanted if key not in self._balances]
        books = sorted({book for book, _ in missing})
        for some in chunks(sorted({account for _, account in missing})):
            for row in ACCOUNTS.rows(self._connection, self._mine, books=books, names=some):
                self._keep(row)
        for book, account in missing:
            if (book, account) not in self._balances:
                self._rows[book, account] = self._fresh(book, wanted[book, account])
                self._stood[book, account] = _EMPTY
                self._balances[book, account] = Balance()

    def balance(self, book: str, account: str) -> Balance:
        return self._balances[book, _hash(account)]

    def entry(self, key: Key) -> "_Entry | None":
        return None if key in self._gone else self._entries.get(key)

    def hold(self, entry: "_Entry") -> None:
        key = entry.wish.key
        self._entries[key] = self._new[key] = self._known[key] = entry
        self._gone.discard(key)

    def forget(self, key: Key) -> None:
        if self._new.pop(key, None) is None:
            self._gone.add(key)
        self._known.pop(key, None)
        del self._entries[key]

    def write(self) -> None:
        """Write all that changed."""
        if self._gone:
            gone = [{**self._mine, "of_thread": book, "of_key": key} for book, key in self._gone]
            FORGET.run(self._connection, gone)
        if self._new:
            HOLD.run(self._connection, [each.row(self._tenant) for each in self._new.values()])
        changed = [
            {**self._rows[key], **dict(zip(_COUNTS, values, strict=True))}
            for key, balance in self._balances.items()
            if (values := _VALUES(balance)) != self._stood[key]
        ]
        if changed:
            POST.run(self._connection, changed)

    def _locked(self, books: Sequence[str]) -> set[str]:
        rows = LOCKED.rows(self._connection, {**self._mine, "of_run": _RUN}, books=books)
        for row in rows:
            self._keep(row)
        return {row["thread"] for row in rows}

    def _keep(self, row: Row) -> None:
        key = row["thread"], bytes(row["account"])
        self._rows[key] = row
        self._stood[key] = values = _STOOD(row)
        self._balances[key] = Balance(*values)

    def _fresh(self, book: str, name: str) -> Row:
        key = {"tenant": self._tenant, "thread": book, "account": _hash(name)}
        return {**key, "name": raw(name), "run": ""}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A reservation: as it was wished, and in which accounts it stands."""

    wish: _Wish
    names: tuple[str, ...]
    state: int = HELD

    @classmethod
    def of(cls, row: Found) -> "_Entry":
        usage = Usage(
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            calls=row["calls"],
            micro_usd=row["micro_usd"],
        )
        names = tuple(text(name) for name in _split(bytes(row["accounts"])))
        wish = _Wish(row["thread"], text(row["name"]), usage, (), {})
        return cls(wish, names, row["state"])

    def row(self, tenant: str) -> Row:
        wish = self.wish
        return {
            "tenant": tenant,
            "thread": wish.book,
            "key": wish.key[1],
            "name": raw(wish.name),
            "accounts": _joined(map(raw, self.names)),
            "input_tokens": wish.usage.input_tokens,
            "output_tokens": wish.usage.output_tokens,
            "calls": wish.usage.calls,
            "micro_usd": wish.usage.micro_usd,
            "state": self.state,
        }


def _post(
    tenant: str, known: "dict[Key, _Entry]", connection: Connection, wishes: Sequence[_Wish]
) -> list[Room]:
    """Reserve and settle, in order; what each reservation is told."""
    books = _Posting(connection, tenant, known)
    books.lock(wish.book for wish in wishes)
    books.read(wish.key for wish in wishes)
    books.fetch(
        (wish.book, name)
        for wish in wishes
        for name in (*(e.account for e in wish.envelopes), *wish.worked, *_names(books, wish))
    )
    said = [_reserved(books, w) if w.envelopes else _settled(books, w) for w in wishes]
    books.write()
    return said


def _names(books: _Posting, wish: _Wish) -> tuple[str, ...]:
    there = books.entry(wish.key)
    return there.names if there is not None else ()


def _reserved(books: _Posting, wish: _Wish) -> Room:
    if books.entry(wish.key) is not None:
        return Room("fits")
    _work(books, wish)
    names = tuple(envelope.account for envelope in wish.envelopes)
    balances = [books.balance(wish.book, name) for name in names]
    said = room(wish.envelopes, balances, wish.usage)
    if said.fit == "fits":
        for balance in balances:
            balance.hold(wish.usage)
        books.hold(_Entry(wish, names))
    return said


def _settled(books: _Posting, wish: _Wish) -> Room:
    _work(books, wish)
    entry = books.entry(wish.key)
    if entry is not None:
        for name in entry.names:
            balance = books.balance(wish.book, name)
            post = balance.correct if entry.state == CHARGED else balance.settle
            post(entry.wish.usage, wish.usage)
        books.forget(wish.key)
    return Room("fits")


def _work(books: _Posting, wish: _Wish) -> None:
    for account, ms in wish.worked.items():
        books.balance(wish.book, account).worked_ms += ms


def _open(tenant: str, book: str, run: str, connection: Connection) -> None:
    books = _Posting(connection, tenant)
    books.lock([book])
    here = (accounts.c.tenant == tenant) & (accounts.c.thread == book)
    mine = here & (accounts.c.account == _RUN)
    if run and connection.scalar(select(accounts.c.run).where(mine)) == run[:128]:
        return
    connection.execute(delete(accounts).where(here, accounts.c.account != _RUN))
    connection.execute(delete(spends).where(spends.c.tenant == tenant, spends.c.thread == book))
    fresh = {"name": b"", "run": run[:128], **_counts(Balance())}
    connection.execute(accounts.update().where(mine).values(fresh))


def _charge(tenant: str, book: str, connection: Connection) -> None:
    books = _Posting(connection, tenant)
    books.lock([book])
    entries = [entry for entry in books.read_all(book) if entry.state == HELD]
    books.fetch((book, name) for entry in entries for name in entry.names)
    for entry in entries:
        for name in entry.names:
            books.balance(book, name).settle(entry.wish.usage, entry.wish.usage)
        books.hold(_Entry(entry.wish, entry.names, CHARGED))
    books.write()


def _grant(tenant: str, wish: _Wish, account: str, more: Budget, connection: Connection) -> None:
    books = _Posting(connection, tenant)
    books.lock([wish.book])
    books.read([wish.key])
    if books.entry(wish.key) is not None:
        return
    if wish.name:
        books.hold(_Entry(wish, (), GRANTED))
    books.fetch([(wish.book, account)])
    books.balance(wish.book, account).grant(more)
    books.write()


def _balance(connection: Connection, *, tenant: str, key: Key) -> Balance:
    book, account = key
    where = (accounts.c.tenant == tenant) & (accounts.c.thread == book)
    query = select(accounts).where(where, accounts.c.account == account)
    row = connection.execute(query).mappings().first()
    return Balance(*_STOOD(row)) if row else Balance()


def _held(connection: Connection, *, tenant: str, book: str) -> list[Spend]:
    books = _Posting(connection, tenant)
    entries = [entry for entry in books.read_all(book) if entry.state == HELD]
    return sorted(
        (Spend(key=e.wish.name, accounts=e.names, reserved=e.wish.usage) for e in entries),
        key=lambda spend: spend.key,
    )


def _counts(balance: Balance) -> dict[str, int]:
    return dict(zip(_COUNTS, _VALUES(balance), strict=True))


@lru_cache(16_384)  # each name is asked for a dozen times in a posting
def _hash(name: str) -> bytes:
    return sha256(raw(name)).digest() if name else _RUN


def _joined(names: Iterable[bytes]) -> bytes:
    """Names one after the other, each behind its length."""
    return b"".join(len(name).to_bytes(4, "big") + name for name in names)


def _split(joined: bytes) -> list[bytes]:
    """What `_joined` was given."""
    names: list[bytes] = []
    while joined:
        size = 4 + int.from_bytes(joined[:4], "big")
        names.append(joined[4:size])
        joined = joined[size:]
    return names
