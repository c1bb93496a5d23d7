"""A pytest plugin, copied beside psycopg's suite: puts the wrapper in place of `psycopg.connect` and `psycopg.Connection`.

pytest loads it before the suite, so that psycopg_pool's default class and subclasses made by tests are the wrapper's too.
"""

from __future__ import annotations

import os
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
