"""Outputs: which unit of a step emits which row, and who wins when two emit one key."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from meshgw.engine.table import Changes, Store, ordered


class Output:
    """The rows of a step's table by the unit (see `Stage`) that emits them.

    The commonest unit emits one row under its own key, so nothing is stored for that: a key without an entry in
    `_owners` belongs to the unit of the same name, and a unit without an entry in `_keys` emits that row or none.
    """

    __slots__ = ("_claims", "_disputed", "_keys", "_owners", "_pending", "_store")

    def __init__(self, store: Store[Any, Any]) -> None:
        self._store = store
        self._keys: dict[Any, tuple[Any, ...]] = {}
        self._owners: dict[Any, Any] = {}
        self._claims: dict[Any, dict[Any, Any]] = {}  # contested key -> unit -> row
        self._pending: dict[Any, Any] = {}  # rows (None: withdrawn) to be published
        self._disputed: dict[Any, None] = {}  # keys found or left contested since the last publication

    def owner(self, key: Any) -> Any:
        """The unit that a row comes from; of an absent row the unit of the same name."""
        return self._owners.get(key, key)

    def rows(self, unit: Any) -> dict[Any, Any]:
        """Rows that a unit emits, including those that lost to a smaller unit's."""
        rows = {}
        for key in self._keys_of(unit):
            row = self._claims[key][unit] if key in self._claims else self._held(key)
            if row is not None:  # None: it went with an abandoned commit
                rows[key] = row
        return rows

    def settle(self, unit: Any, emitted: dict[Any, Any]) -> None:
        """Make these the rows of a unit."""
        pending, rows, owners, claims = self._pending, self._store.rows, self._owners, self._claims
        keys, before = tuple(emitted), self._keys_of(unit)
        if keys != before and (before or keys != (unit,)):  # a new unit under its own key needs no note
            self._move(unit, before, keys)
        for key, row in emitted.items():
            held = pending[key] if key in pending else rows.get(key)
            if held is None:
                pending[key] = row
                if key != unit:
                    owners[key] = unit
            elif key in claims or owners.get(key, key) != unit:
                self._contest(key, held, unit, row)
            elif held is not row and held != row:
                pending[key] = row

    def publish(self, sequence: int) -> Changes:
        """Store what was settled."""
        changes = self._store.apply(self._pending, sequence)
        self.forget()
        return changes

    def forget(self) -> None:
        """Drop what was settled and not published."""
        self._pending, self._disputed = {}, {}

    def disputes(self, *, fresh: bool) -> Iterator[tuple[Any, Any, list[Any]]]:
        """Contested keys in order, all or those found so since the last publication: key, winner, sorted losers."""
        contested: Collection[Any] = self._disputed if fresh else self._claims
        for key in ordered(contested):
            winner, *losers = ordered(self._claims[key])
            yield key, winner, losers

    def _keys_of(self, unit: Any) -> tuple[Any, ...]:
        keys = self._keys.get(unit)
        if keys is not None:
            return keys
        if unit in self._owners:  # not its own, then: but it may have lost it
            return (unit,) if unit in self._claims and unit in self._claims[unit] else ()
        held = self._pending[unit] if unit in self._pending else self._store.rows.get(unit)
        return () if held is None else (unit,)

    def _held(self, key: Any) -> Any:
        return self._pending[key] if key in self._pending else self._store.rows.get(key)

    def _move(self, unit: Any, before: tuple[Any, ...], keys: tuple[Any, ...]) -> None:
        for key in before:
            if key in keys:
                continue
            claims = self._claims.get(key)
            if claims is None:
                self._owners.pop(key, None)
                self._pending[key] = None
            else:
                del claims[unit]
                self._award(key, claims)
        if keys and keys != (unit,):
            self._keys[unit] = keys
        else:
            self._keys.pop(unit, None)

    def _contest(self, key: Any, held: Any, unit: Any, row: Any) -> None:
        claims = self._claims.setdefault(key, {})
        if not claims:
            claims[self._owners.get(key, key)] = held
        claims[unit] = row
        self._award(key, claims)

    def _award(self, key: Any, claims: dict[Any, Any]) -> None:
        """Give a contested key to its smallest claimant, whatever the order in which they came."""
        winner = ordered(claims)[0]
        self._pending[key] = claims[winner]
        if winner == key:
            self._owners.pop(key, None)
        else:
            self._owners[key] = winner
        if len(claims) > 1:
            self._disputed[key] = None
        else:
            del self._claims[key]
            self._disputed.pop(key, None)
