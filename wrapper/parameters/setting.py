"""What one parameter is, and how a value given for it is read and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

from msgspec import Struct

from wrapper.errors import AwsWrapperError


class Form(Struct, frozen=True):
    """How a text must look: a regular expression for the whole of it, any case, and the same in words."""

    words: str
    pattern: str
    lower: bool = False  # upper case means the same and is lowered

    def read(self, text: str) -> str:
        """Return the text without outer blanks. Raises `ValueError` when it does not look as it must."""
        text = text.strip()
        if not re.fullmatch(self.pattern, text, re.IGNORECASE):
            raise ValueError(text)
        return text.lower() if self.lower else text


class Setting(Struct, frozen=True):
    """One parameter.

    `unit` is that of the value as given; bounds are inclusive. A `tuple` is given as a comma-separated list, to each item of which
    `choices` and `form` apply; an `object` can be a keyword argument only. A choice may be written in any case, with hyphens,
    underscores, or as JDBC writes it (strictWriter). `keyword` is set where the value is the driver's rather than ours, to libpq's
    name for it.
    """

    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    plugin: str = "core"  # whose it is: a subject, or codes of plugins with commas; for the documentation
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    form: Form | None = None
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False
    keyword: str = ""
    differs: str = ""  # why the default is not the reference's
    idle: str = ""  # why it has no effect, where it has none although what it belongs to exists

    def parse(self, value: Any, shown: str = "") -> Any:
        """Return `value` in this setting's type, the default for None.

        Raises `AwsWrapperError` naming the parameter (as `shown`, if given), the value unless it is secret, and what is allowed.
        """
        if value is None:
            return self.default
        try:
            return self._read(value)
        except (AttributeError, TypeError, ValueError, OverflowError):
            pass  # the value may be a secret, and is not to be found in the context of our error either
        text = "(hidden)" if self.secret else repr(value)
        raise AwsWrapperError(f"{shown or self.name}={text} is not valid: expected {self.allowed()}")

    def _read(self, value: Any) -> Any:
        if self.type is tuple:
            items = value.split(",") if isinstance(value, str) else list(value)
            # Each item once, in the order given; an empty list says no more than none.
            return tuple(dict.fromkeys(self._read_text(item) for item in items if item.strip())) or self.default
        parsed = _READERS[self.type](value)
        if isinstance(parsed, str):
            return self._read_text(parsed)
        if (self.minimum is not None and parsed < self.minimum) or (self.maximum is not None and parsed > self.maximum):
            raise ValueError(value)
        return parsed

    def _read_text(self, text: str) -> str:
        if not self.choices:
            return self.form.read(text) if self.form is not None else text
        for choice in self.choices:
            if _spelling(choice) == _spelling(text):
                return choice
        raise ValueError(text)

    def allowed(self) -> str:
        """Return in words what may be given."""
        if self.choices:
            kind = "a comma-separated list of" if self.type is tuple else "one of"
            return f"{kind} {', '.join(choice or 'empty' for choice in self.choices)}"
        if self.form is not None:
            return f"a comma-separated list, each {self.form.words}" if self.type is tuple else self.form.words
        bounds = (("least", self.minimum), ("most", self.maximum))
        limits = [f"at {word} {bound:.9g}" for word, bound in bounds if bound is not None]
        unit = f" {self.unit}" if self.unit else ""
        return _WORDS[self.type] + (f", {' and '.join(limits)}{unit}" if limits else "")


def _spelling(text: str) -> str:
    # The reference documents hyphens in some places and understands underscores only; its siblings write leastConnections. All mean
    # the same here.
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text.strip()).lower().replace("-", "_")


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(text)


def _read_int(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or not (isinstance(value, str) or number == value):
        raise ValueError(value)
    return number


def _read_float(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not isfinite(number):
        raise ValueError(value)
    return number


def _read_str(value: Any) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(value)


def _read_object(value: Any) -> Any:
    if isinstance(value, str):
        raise TypeError(value)
    return value


_READERS: dict[type, Callable[[Any], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
    object: _read_object,
}
_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a comma-separated list",
    object: "an object, as a keyword argument",
}
