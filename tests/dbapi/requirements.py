"""What PEP 249 asks of a driver: the suite of `dbapi-compliance`, and the answers that it leaves to the driver."""

from __future__ import annotations

from typing import Any

import dbapi20


class Requirements(dbapi20.DatabaseAPI20Test):  # type: ignore[misc]
    """Two questions are answered here that the suite leaves to the driver, and one on which it is stricter than PEP 249."""

    __test__ = False  # `TestEveryConfiguration` runs it

    def _connect(self) -> Any:
        connection = super()._connect()
        # Several tests leave theirs open.
        self.addCleanup(connection.close)
        return connection

    def test_non_idempotent_close(self) -> None:
        """A closed connection may be closed again, and PEP 249 does not forbid it."""
        connection = self._connect()
        connection.close()
        connection.close()

    def test_nextset(self) -> None:
        """Several statements in one text have several results."""
        cursor = self._connect().cursor()
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.fetchall() == [(1,)]
        assert cursor.nextset()
        assert cursor.fetchall() == [(2,)]
        assert not cursor.nextset()

    def test_setoutputsize(self) -> None:
        """Nothing is cut off, whatever size is announced."""
        cursor = self._connect().cursor()
        cursor.setoutputsize(1)
        cursor.execute("SELECT 'longer'")
        assert cursor.fetchall() == [("longer",)]
