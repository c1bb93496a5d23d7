"""A pytest plugin, copied beside psycopg's suite: puts the wrapper in place of `psycopg.connect` and `psycopg.Connection`.

pytest loads it before the suite, so that psycopg_pool's default class and subclasses made by tests are the wrapper's too.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import Row

import wrapper.psycopg

if TYPE_CHECKING:
    from typing_extensions import Self

_DEFAULTS = {"plugins": os.environ["CONFORMANCE_PLUGINS"]} if "CONFORMANCE_PLUGINS" in os.environ else {}


class Connection(wrapper.psycopg.Connection[Row]):
    __module__ = "psycopg"

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        return super().connect(conninfo, **{**_DEFAULTS, **kwargs})


psycopg.Connection = Connection  # type: ignore[misc]
psycopg.connect = Connection.connect


_has_failed = False


def pytest_runtest_logreport(report: Any) -> None:
    global _has_failed
    _has_failed = _has_failed or report.failed


def pytest_runtest_logstart() -> None:
    """Collect what a failed test left open, before it counts against the next one: its traceback keeps connections alive."""
    global _has_failed
    if _has_failed:
        _has_failed = False
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            sys.__dict__.pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
