"""Connection text: taking the wrapper's own parameters out, so that the driver's own parser gets the rest unchanged.

libpq accepts two forms, `keyword=value` pairs and URIs, and refuses words it does not know. Only the words are found here, by
libpq's rules (PostgreSQL manual, 34.1.1); quoting, percent-encoding, services and environment variables stay libpq's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from wrapper.errors import AwsWrapperError

URI_SCHEMES = ("postgresql://", "postgres://")
_PAIR = re.compile(r"\s*(?P<name>[^\s=]+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<plain>(?:[^\s\\']|\\.)*))(?=\s|$)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def extract(text: str, is_ours: Callable[[str], bool]) -> tuple[dict[str, str], str]:
    """Return the parameters for which `is_ours` holds, and the text without them.

    Raises `AwsWrapperError` for text that is neither form; the message does not repeat the text, which may hold a password.
    """
    if text.startswith(URI_SCHEMES):
        return _from_uri(text, is_ours)
    return _from_pairs(text, is_ours)


def _from_uri(text: str, is_ours: Callable[[str], bool]) -> tuple[dict[str, str], str]:
    base, mark, query = text.partition("?")
    ours: dict[str, str] = {}
    rest: list[str] = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if is_ours(unquote(name)):
            ours[unquote(name)] = unquote(value)
        else:
            rest.append(part)
    return ours, base + (mark + "&".join(rest) if rest else "")


def _from_pairs(text: str, is_ours: Callable[[str], bool]) -> tuple[dict[str, str], str]:
    ours: dict[str, str] = {}
    rest: list[str] = []
    position = 0
    while text[position:].strip():
        match = _PAIR.match(text, position)
        if match is None:
            raise AwsWrapperError(
                f"the connection text cannot be read at position {position}: expected keyword=value (quote values that hold blanks "
                "with single quotes) or a postgresql:// URI"
            )
        name = match["name"]
        if is_ours(name):
            value = match["quoted"] if match["quoted"] is not None else match["plain"]
            ours[name] = _ESCAPE.sub(r"\1", value)
        else:
            rest.append(match[0].strip())
        position = match.end()
    return ours, " ".join(rest)
