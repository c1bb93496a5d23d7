"""Connection text: taking the wrapper's own parameters out, so that the driver's own parser gets the rest unchanged.

libpq accepts two forms, `keyword=value` pairs and URIs, and refuses words it does not know. Only the words are found here, by
libpq's rules (PostgreSQL manual, 34.1.1); quoting, percent-encoding, services and environment variables of the rest stay libpq's
business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from wrapper.errors import AwsWrapperError

# What in libpq's environment says which endpoint is meant.
ENVIRONMENT = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE")
URI_SCHEMES = ("postgresql://", "postgres://")
# To libpq a blank is an ASCII one, a quote matters at the beginning of a value only, and a backslash at the very end is dropped.
# A plain value may not begin with a blank: the blanks after the "=" are skipped, also when another pair follows them.
_PAIR = re.compile(
    r"\s*(?P<pair>(?P<name>[^\s=]+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?![\s'])(?P<plain>(?:[^\s\\]|\\.?)*)))",
    re.ASCII | re.DOTALL,
)
_BLANKS = re.compile(r"\s*\Z", re.ASCII)
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


def extract(text: str, is_ours: Callable[[str], bool]) -> tuple[dict[str, str], str]:
    """Return the parameters for which `is_ours` holds, and the text without them.

    Raises `AwsWrapperError` for text that is neither form; the message does not repeat the text, which may hold a password.
    """
    if text.startswith(URI_SCHEMES):
        return _from_uri(text, is_ours)
    return _from_pairs(text, is_ours)


def _from_uri(text: str, is_ours: Callable[[str], bool]) -> tuple[dict[str, str], str]:
    # As libpq looks for it: user and password end at the first "@", if that comes before any "/", and may hold a "?".
    authority = text.index("://") + 3
    user_info = re.compile(r"[^@/]*@").match(text, authority)
    mark = text.find("?", user_info.end() if user_info is not None else authority)
    if mark < 0:
        return {}, text
    ours: dict[str, str] = {}
    rest: list[str] = []
    for part in text[mark + 1 :].split("&"):
        name, separator, value = part.partition("=")
        if not is_ours(unquote(name)):
            rest.append(part)
        elif not separator or "=" in value or _BAD_PERCENT.search(part):
            raise AwsWrapperError(f"{unquote(name)} in the connection URI cannot be read: expected name=value, percent-encoded")
        else:
            ours[unquote(name)] = unquote(value)
    return ours, text[:mark] + ("?" + "&".join(rest) if rest else "")


def _from_pairs(text: str, is_ours: Callable[[str], bool]) -> tuple[dict[str, str], str]:
    ours: dict[str, str] = {}
    rest: list[str] = []
    position = 0
    while not _BLANKS.match(text, position):
        match = _PAIR.match(text, position)
        if match is None:
            raise AwsWrapperError(
                f"the connection text cannot be read at position {position}: expected keyword=value (quote values that hold blanks "
                "with single quotes) or a postgresql:// URI"
            )
        if is_ours(match["name"]):
            value = match["quoted"] if match["quoted"] is not None else match["plain"]
            ours[match["name"]] = _ESCAPE.sub(r"\1", value)
        else:
            rest.append(match["pair"])
        position = match.end()
    return ours, " ".join(rest)
