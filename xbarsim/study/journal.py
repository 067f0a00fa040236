"""Journal: finished chips on the disk at once, so that a study that was killed goes on where it was.

An SQLite database beside the output. Each finished unit is one transaction, synchronised with the disk; a chip is
inserted once and never replaced. The database is locked as long as a study runs, by a lock that the system drops when
the process ends in whatever way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xbarsim.errors import DataError, OutputError
from xbarsim.study.records import ChipRecord, PointRecord

__all__ = ["Journal"]

_APPLICATION = 0x78627331
"""Marks the database as a journal of this form ("xbs1")."""

_TABLES = """
CREATE TABLE study (identity TEXT NOT NULL);
CREATE TABLE points (point TEXT PRIMARY KEY, record TEXT NOT NULL, portrait BLOB);
CREATE TABLE chips (point TEXT NOT NULL, seed INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (point, seed));
"""


class Journal:
    """Finished chips of one study.

    Parameters
    ----------
    output : Path, optional
        The study's output; the journal lies beside it. Without one, it is in memory.
    force : bool
        Begin a new one in place of a damaged one.

    Raises
    ------
    OutputError
        Another study is writing to this output, or the journal cannot be written.
    DataError
        The journal is damaged, or is no journal.
    """

    def __init__(self, output: Path | None, *, force: bool = False) -> None:
        self.path = None if output is None else self.beside(output)
        try:
            self._connect()
        except DataError:
            if not force or self.path is None:
                raise
            self.path.unlink()
            self._connect()

    @staticmethod
    def beside(output: Path) -> Path:
        """Where the journal of an output lies."""
        return output.with_name(f"{output.name}.journal")

    @property
    def identity(self) -> str | None:
        """What the study depends on, as `begin` was told; None in a new journal."""
        with self._explained():
            row = self._database.execute("SELECT identity FROM study").fetchone()
        return None if row is None else str(row[0])

    def begin(self, identity: str, points: Iterable[PointRecord], chips: Iterable[ChipRecord]) -> None:
        """Say what the study depends on, and hold these records and no others: all of it at once, or nothing."""
        with self._transaction():
            for table in ("study", "points", "chips"):
                self._database.execute(f"DELETE FROM {table}")
            self._database.execute("INSERT INTO study VALUES (?)", [identity])
            self._insert(points, chips)

    def add(self, points: Iterable[PointRecord], chips: Iterable[ChipRecord]) -> None:
        """Keep what a unit found; when this returns, it is on the disk."""
        with self._transaction():
            self._insert(points, chips)

    def chips(self) -> list[ChipRecord]:
        """All finished chips, in the order of points' identities and seeds."""
        with self._explained():
            rows = self._database.execute("SELECT record FROM chips ORDER BY point, seed").fetchall()
        return [ChipRecord.from_json(record) for (record,) in rows]

    def points(self) -> list[PointRecord]:
        """What the chips of each point share."""
        with self._explained():
            rows = self._database.execute("SELECT record, portrait FROM points ORDER BY point").fetchall()
        records = [(PointRecord.from_json(record), portrait) for record, portrait in rows]
        return [record if portrait is None else record.with_portrait(portrait) for record, portrait in records]

    def close(self) -> None:
        """Release the lock; the records stay, and a journal without chips goes."""
        with suppress(sqlite3.Error):  # closed already, or damaged
            if self._database.execute("SELECT count(*) FROM chips").fetchone() == (0,) and self.path is not None:
                self.path.unlink(missing_ok=True)
        self._database.close()

    def remove(self) -> None:
        """Delete the journal, whose records are kept elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self._database.close()

    def _connect(self) -> None:
        with self._explained():
            self._database = sqlite3.connect(self.path or ":memory:", timeout=0.0, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        # the lock that the first transaction takes is kept until the end
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("BEGIN EXCLUSIVE")
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (objects,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if objects == 0:
            self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._database.execute(statement)
        elif application != _APPLICATION:
            raise DataError(f"{self.path}: not a journal of this version of xbarsim; move it away")
        self._database.execute("COMMIT")
        if self.path is not None and not self.path.exists():  # whoever had the lock removed it just now
            raise sqlite3.OperationalError("database is locked")
        (state,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state.splitlines()[-1])  # the first line names the database only

    def _insert(self, points: Iterable[PointRecord], chips: Iterable[ChipRecord]) -> None:
        self._database.executemany(
            "INSERT INTO points VALUES (?, ?, ?) ON CONFLICT (point) DO UPDATE SET portrait = excluded.portrait "
            "WHERE excluded.portrait IS NOT NULL",
            [(record.point, record.to_json(), record.portrait_bytes()) for record in points],
        )
        self._database.executemany(
            "INSERT INTO chips VALUES (?, ?, ?)", [(record.point, record.seed, record.to_json()) for record in chips]
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._database.execute("BEGIN")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of SQLite as one line for users."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a chip that was computed twice is a defect
        except sqlite3.OperationalError as error:
            text = str(error)
            if "locked" in text:
                raise OutputError(
                    f"{self.path}: locked: another study is writing to this output; wait for it, or choose another name"
                ) from None
            raise OutputError(f"{self.path}: cannot be written: {_REASONS.get(text, text)}") from None
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path}: damaged, or no journal of xbarsim ({error}); move it away to go on from the output alone"
            ) from None


_REASONS = {
    "database or disk is full": "no space left on the device",
    "disk I/O error": "the disk is full or failing",
    "unable to open database file": "the folder is missing or not writable",
}
