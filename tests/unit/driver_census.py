"""A census of psycopg from its own source: which public methods can reach the network, and by which way.

It reads syntax trees, because the driver's objects reach each other by well-known names (`self._conn.wait`, `self.writer.finish`):
from each method it follows every mention of another one, until it meets the connection's I/O point, the functions below it, or a
function of libpq that blocks. A name whose receiver is unknown may belong to any of the classes: rather a method too many in the
census than one too few.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg

# The ends of the way: psycopg's single I/O point, and what does not go through it.
IO_POINT = "Connection.wait"
BESIDE_IT = "beside it"

_BLOCKING_LIBPQ = frozenset(
    {"exec_", "exec_params", "exec_prepared", "prepare", "describe_prepared", "describe_portal", "connect", "reset", "ping"}
    | {"get_cancel", "cancel_conn", "change_password"}
)
_LIBPQ = frozenset({"pgconn", "_pgconn"})
# What the driver calls its own objects, and objects that only have method names in common with them.
_RECEIVERS = {
    **dict.fromkeys(("_conn", "conn", "connection"), "Connection"),
    **dict.fromkeys(("pipeline", "_pipeline"), "Pipeline"),
}
_STRANGERS = frozenset({"formatter", "_queue", "_tx", "_prepared", "logger", "pool", "file"})

# (receiver, name): the last part of what stands before the dot, and what stands behind it.
Mention = tuple[str, str]


@cache
def network_classes() -> dict[str, type]:
    """Return the driver's synchronous classes that do I/O in their own code, by name."""
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

    def __init__(self, classes: dict[str, type]) -> None:
        self._classes = classes

    def methods(self, kind: type) -> dict[str, frozenset[str]]:
        """Return the public methods of a class that can reach the network, each with the ends of its way."""
        names = {name for parent in kind.__mro__ if parent.__module__.startswith("psycopg") for name in vars(parent)}
        public = sorted(name for name in names if not name.startswith("_") or (name.startswith("__") and name.endswith("__")))
        ends = {name: self._ends(kind, name) for name in public if name not in ("__init__", "__del__")}
        return {name: found for name, found in ends.items() if found}

    def _ends(self, kind: type, name: str) -> frozenset[str]:
        """Follow all mentions from one method to their ends."""
        ends: set[str] = set()
        seen: set[tuple[type, str]] = set()
        todo = [(kind, name)]
        while todo:
            here, method = todo.pop()
            if (here, method) in seen:
                continue
            seen.add((here, method))
            if method == "wait" and issubclass(here, psycopg.Connection):
                ends.add(IO_POINT)
                if (here, method) != (kind, name):
                    continue
            owner = next((parent for parent in here.__mro__ if method in vars(parent)), None)
            if owner is None:
                continue
            for mention in _mentions(owner, method):
                if mention[0] == "waiting" or (mention[0] in _LIBPQ and mention[1] in _BLOCKING_LIBPQ):
                    ends.add(BESIDE_IT)
                else:
                    todo.extend(self._targets(here, owner, mention))
        return frozenset(ends)

    def _targets(self, here: type, owner: type, mention: Mention) -> Iterator[tuple[type, str]]:
        """Yield the methods that a mention in `owner`'s code, running for an object of class `here`, may mean."""
        receiver, name = mention
        if receiver in _LIBPQ or receiver in _STRANGERS:
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
        elif receiver in _RECEIVERS:
            yield self._classes[_RECEIVERS[receiver]], name
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
    functions = [inspect.unwrap(getattr(part, "__func__", part)) for part in parts if part is not None]
    codes = [function.__code__ for function in functions if inspect.isfunction(function)]
    return tuple(
        _functions(code.co_filename)[code.co_firstlineno]
        for code in codes
        if code.co_filename.endswith(".py")  # else made by exec
    )


@cache
def _functions(file: str) -> dict[int, ast.AST]:
    """Return the functions of a source file by their first line, decorators included."""
    nodes = [
        node for node in ast.walk(ast.parse(Path(file).read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]): node for node in nodes}
