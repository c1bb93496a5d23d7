"""A census of a driver from its own source: which public methods can reach the network, and by which way.

It reads syntax trees, because the driver's objects reach each other by well-known names (`self._conn.wait`, `self.writer.finish`):
from each method it follows every mention of another one, until it meets what the guard watches, or what reaches the network past
it. A name whose receiver is unknown may belong to any of the classes: rather a method too many in the census than one too few.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg

from wrapper.drivers.mysql_guard import guarded_class

# The ends of a way: where the guard watches, and what does not come by there.
GUARDED = "guarded"
BESIDE_IT = "beside it"

# (receiver, name): the last part of what stands before the dot, and what stands behind it.
Mention = tuple[str, str]
# A method, as called on an object of a class.
Place = tuple[type, str]


@dataclass(frozen=True)
class Driver:
    """What has to be known of a driver's source.

    `end(mention)`: which end of a way a mention is, empty for none. `is_guarded(kind, method)`: whether a method is one that the
    guard watches. `receivers`: what the driver calls its own objects; `strangers`: objects that only have method names in common
    with them.
    """

    package: str
    end: Callable[[Mention], str]
    is_guarded: Callable[[type, str], bool]
    receivers: Mapping[str, str]
    strangers: frozenset[str]


_BLOCKING_LIBPQ = frozenset(
    {"exec_", "exec_params", "exec_prepared", "prepare", "describe_prepared", "describe_portal", "connect", "reset", "ping"}
    | {"get_cancel", "cancel_conn", "change_password"}
)
_LIBPQ = frozenset({"pgconn", "_pgconn"})


def _end_in_psycopg(mention: Mention) -> str:
    receiver, name = mention
    return BESIDE_IT if receiver == "waiting" or (receiver in _LIBPQ and name in _BLOCKING_LIBPQ) else ""


PSYCOPG = Driver(
    "psycopg",
    _end_in_psycopg,
    lambda kind, method: method == "wait" and issubclass(kind, psycopg.Connection),
    {
        **dict.fromkeys(("_conn", "conn", "connection"), "Connection"),
        **dict.fromkeys(("pipeline", "_pipeline"), "Pipeline"),
    },
    _LIBPQ | {"formatter", "_queue", "_tx", "_prepared", "logger", "pool", "file"},
)

# Functions of the C library's session and statement objects: those that wait for the server, and those that do not.
_WAITING = frozenset(
    {"autocommit", "change_user", "close", "commit", "connect", "consume_result", "fetch_row", "free_result", "next_result", "ping"}
    | {"query", "refresh", "reset_connection", "rollback", "select_db", "set_character_set", "shutdown", "stat"}
    | {"stmt_close", "stmt_execute", "stmt_prepare", "stmt_reset"}
)
_NOT_WAITING = frozenset(
    {
        "affected_rows",
        "connected",
        "convert_to_mysql",
        "converter_str_fallback",
        "fetch_fields",
        "get_proto_info",
        "get_server_info",
    }
    | {"get_ssl_cipher", "have_result_set", "insert_id", "more_results", "num_rows", "param_count", "raw", "st_field_count"}
    | {"st_server_capabilities", "st_server_status", "st_warning_count", "set_load_data_local_infile_option", "thread_id"}
    | {"use_unicode", "warning_count", "get_character_set_info", "character_set_name", "hex_string", "escape_string", "execute"}
    | {"st_client_flag", "st_info", "buffered", "get_client_info", "get_host_info"}
)
_C_LIBRARY = frozenset({"_cmysql", "prep_stmt", "statement_id", "_stmt"})


def _end_in_mysql(mention: Mention) -> str:
    receiver, name = mention
    if receiver == "_socket":
        return GUARDED if name in ("send", "recv") else BESIDE_IT if name == "open_connection" else ""
    return BESIDE_IT if receiver in _C_LIBRARY and name in _WAITING else ""


def _is_guarded_in_mysql(kind: type, method: str) -> bool:
    return (
        mysql.connector.HAVE_CEXT
        and issubclass(kind, mysql.connector.CMySQLConnection)
        and not method.startswith("__")
        and method in vars(guarded_class(mysql.connector.CMySQLConnection))
    )


def mysql_driver(connection_class: type) -> Driver:
    """mysql-connector-python with cursors of one of its implementations."""
    return Driver(
        "mysql.connector",
        _end_in_mysql,
        _is_guarded_in_mysql,
        dict.fromkeys(("_connection", "_cnx", "cnx"), connection_class.__name__),
        _C_LIBRARY | {"_socket", "_protocol", "logger", "_converter", "converter", "_authenticator", "_charset", "_character_set"},
    )


def c_functions(classes: Iterable[type]) -> set[str]:
    """Return the functions of the C library that these classes mention and that are not listed above."""
    mentions = {
        mention for kind in classes for parent in kind.__mro__ for method in vars(parent) for mention in _mentions(parent, method)
    }
    return {name for receiver, name in mentions if receiver in _C_LIBRARY} - _WAITING - _NOT_WAITING


@cache
def network_classes() -> dict[str, type]:
    """Return psycopg's synchronous classes that do I/O in their own code, by name."""
    found: dict[str, type] = {}
    for info in pkgutil.walk_packages(psycopg.__path__, "psycopg."):
        try:
            module = import_module(info.name)
        except ImportError:
            continue  # support for a package that is not installed
        found.update((kind.__name__, kind) for kind in vars(module).values() if isinstance(kind, type) and _does_io(kind))
    return found


def _does_io(kind: type) -> bool:
    if not kind.__module__.startswith("psycopg") or kind.__module__.startswith("psycopg.pq") or kind.__name__.startswith("Async"):
        return False
    return any(
        name == "wait" or receiver == "waiting" or (receiver in _LIBPQ and name in _BLOCKING_LIBPQ)
        for method in vars(kind)
        for receiver, name in _mentions(kind, method)
    )


class Census:
    """The ways of the methods of some classes. `classes`: those that may meet each other, by name."""

    def __init__(self, driver: Driver, classes: dict[str, type]) -> None:
        self._driver = driver
        self._classes = classes
        self._steps: dict[Place, tuple[set[str], frozenset[Place]]] = {}
        self._ends: dict[Place, set[str]] = {}

    def methods(self, kind: type) -> dict[str, frozenset[str]]:
        """Return the public methods of a class that can reach the network, each with the ends of its way."""
        names = {name for parent in kind.__mro__ if parent.__module__.startswith(self._driver.package) for name in vars(parent)}
        public = sorted(name for name in names if not name.startswith("_") or (name.startswith("__") and name.endswith("__")))
        places = [(kind, name) for name in public if name not in ("__init__", "__del__")]
        self._follow(places)
        found = {place[1]: self._ends[place] | set().union(*map(self._through, self._steps[place][1])) for place in places}
        return {name: frozenset(ends) for name, ends in found.items() if ends}

    def _through(self, place: Place) -> set[str]:
        """Return the ends of the ways that lead through a place: what the guard watches, it hears of there and then."""
        return {GUARDED} if self._driver.is_guarded(*place) else self._ends[place]

    def _follow(self, places: list[Place]) -> None:
        """Find out where the ways from some places end, and from all that lie on them."""
        todo, new = list(places), []
        while todo:
            place = todo.pop()
            if place not in self._steps:
                new.append(place)
                self._steps[place] = ends, targets = self._step(*place)
                self._ends[place] = set(ends)
                todo.extend(targets)
        has_changed = True
        while has_changed:
            has_changed = False
            for place in new:
                ends = self._ends[place]
                before = len(ends)
                ends.update(*map(self._through, self._steps[place][1]))
                has_changed |= len(ends) != before

    def _step(self, here: type, method: str) -> tuple[set[str], frozenset[Place]]:
        """Return the ends that a method itself is at, and the methods that it mentions."""
        ends = {GUARDED} if self._driver.is_guarded(here, method) else set()
        targets: set[Place] = set()
        owner = next((parent for parent in here.__mro__ if method in vars(parent)), None)
        for mention in () if owner is None else _mentions(owner, method):
            end = self._driver.end(mention)
            if end:
                ends.add(end)
            else:
                assert owner is not None
                targets.update(self._targets(here, owner, mention))
        return ends, frozenset(targets)

    def _targets(self, here: type, owner: type, mention: Mention) -> Iterator[Place]:
        """Yield the methods that a mention in `owner`'s code, running for an object of class `here`, may mean."""
        receiver, name = mention
        if receiver in self._driver.strangers:
            return
        if receiver == "" and name in self._classes:  # an object is made; if it is a block, it is entered
            for dunder in ("__enter__", "__exit__"):
                yield self._classes[name], dunder
        elif receiver == "super()":
            following = here.__mro__[here.__mro__.index(owner) + 1 :]
            yield from ((parent, name) for parent in following[:-1] if name in vars(parent))
        elif receiver in ("self", "cls"):
            yield here, name
            yield from (target for alias in _aliases(here, name) for target in self._targets(here, owner, alias))
        elif receiver in self._driver.receivers:
            yield self._classes[self._driver.receivers[receiver]], name
        elif receiver:
            yield from ((kind, name) for kind in self._classes.values() if inspect.isfunction(getattr(kind, name, None)))


def _aliases(kind: type, name: str) -> Iterator[Mention]:
    """Yield what `__init__` binds to `self.<name>`, such as `self._write = writer.write`."""
    for parent in kind.__mro__:
        for tree in _trees(parent, "__init__"):
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
                    for target in node.targets:
                        if isinstance(target, ast.Attribute) and target.attr == name:
                            yield _last_part(node.value.value), node.value.attr


@cache
def _mentions(owner: type, method: str) -> frozenset[Mention]:
    """Return everything that a method of a class mentions."""
    found: set[Mention] = set()
    for tree in _trees(owner, method):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add((_last_part(node.value), node.attr))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(("", node.func.id))
    return frozenset(found)


def _last_part(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    return "super()" if ast.unparse(node) == "super()" else "?"


@cache
def _trees(owner: type, method: str) -> tuple[ast.AST, ...]:
    """Return the source of what a class defines under a name: of a function, or of a property's."""
    attribute: Any = vars(owner).get(method)
    parts = (attribute.fget, attribute.fset, attribute.fdel) if isinstance(attribute, property) else (attribute,)
    functions = [_decorated(getattr(part, "__func__", part)) for part in parts if part is not None]
    codes = [function.__code__ for function in functions if inspect.isfunction(function)]
    return tuple(
        _functions(code.co_filename)[code.co_firstlineno]
        for code in codes
        if code.co_filename.endswith(".py")  # else made by exec
    )


def _decorated(function: Any) -> Any:
    """Return what a decorator was given, if it says so or keeps it."""
    function = inspect.unwrap(function)
    kept = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if inspect.isfunction(cell.cell_contents)]
    return _decorated(kept[0]) if len(kept) == 1 else function


@cache
def _functions(file: str) -> dict[int, ast.AST]:
    """Return the functions of a source file by their first line, decorators included."""
    nodes = [
        node for node in ast.walk(ast.parse(Path(file).read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]): node for node in nodes}
