"""Session state: what an application has set on a connection, as values that can be compared, carried over and put back.

What is tracked is what the driver knows without asking: attributes of its connection object (autocommit, isolation level, row
factory …) and the settings that the server reports of its own accord (PostgreSQL: time zone, date style, client encoding,
`application_name`; from version 18 on also `search_path`). Other SET statements leave no trace at the client and are not tracked.
docs/session-state.md has the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionState:
    """Attributes of the driver's connection by name, and settings of the server by name."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def beyond(self, other: SessionState) -> SessionState:
        """Return what of this state is different, or missing, in `other`."""
        return SessionState(_beyond(self.attributes, other.attributes), _beyond(self.parameters, other.parameters))


def _beyond(mine: Mapping[str, T], other: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in mine.items() if name not in other or other[name] != value}


@dataclass(frozen=True, slots=True)
class SessionStateField(Generic[T]):
    """One setting: its value now, and the one that the connection was opened with."""

    value: T | None
    pristine_value: T | None

    def is_pristine(self) -> bool:
        """Whether it is as it was when the connection was opened."""
        return self.value == self.pristine_value

    def can_restore_pristine(self) -> bool:
        """Whether it was changed and the original value is known."""
        return self.pristine_value is not None and not self.is_pristine()


@dataclass(frozen=True, slots=True)
class TrackedSession:
    """What a hook is given: the state of a connection now, and that with which it was opened."""

    current: SessionState
    pristine: SessionState

    def field(self, name: str) -> SessionStateField[Any]:
        """Return one attribute, such as `isolation_level`."""
        return SessionStateField(self.current.attributes.get(name), self.pristine.attributes.get(name))

    @property
    def auto_commit(self) -> SessionStateField[bool]:
        return self.field("autocommit")

    @property
    def readonly(self) -> SessionStateField[bool]:
        return self.field("read_only")


# Given the state and a driver connection; returns whether it did all that is to do.
Hook = Callable[[TrackedSession, Any], bool]


class SessionStateTransferHandlers:
    """Hooks of this process around session state. One that returns true has done everything; after one that returns false the
    built-in behaviour follows. What a hook raises ends the switch (or keeps the connection out of its pool), and a transaction that
    it leaves open is committed."""

    _reset: Hook | None = None
    _transfer: Hook | None = None

    @classmethod
    def set_transfer_session_state_on_switch_func(cls, func: Hook) -> None:
        """Have `func(state, new_connection)` called when a connection is replaced, before the new one is used."""
        cls._transfer = func

    @classmethod
    def get_transfer_session_state_on_switch_func(cls) -> Hook | None:
        return cls._transfer

    @classmethod
    def reset_transfer_session_state_on_switch_func(cls) -> None:
        """Forget the hook."""
        cls._transfer = None

    @classmethod
    def set_reset_session_state_on_close_func(cls, func: Hook) -> None:
        """Have `func(state, connection)` called when a connection goes back to a pool."""
        cls._reset = func

    @classmethod
    def get_reset_session_state_on_close_func(cls) -> Hook | None:
        return cls._reset

    @classmethod
    def clear_reset_session_state_on_close_func(cls) -> None:
        """Forget the hook."""
        cls._reset = None
