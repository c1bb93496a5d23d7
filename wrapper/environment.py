"""The environment as libpq sees it, at the price of a C call.

`os.environ.get` runs three Python functions and, where nothing is set, raises and catches two exceptions. A connect asks for
several variables that are hardly ever set.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

# Keeps the interpreter's lock: whoever changes os.environ holds it too, so that nothing moves while it is read.
_getenv = ctypes.PyDLL(None).getenv
_getenv.argtypes = [ctypes.c_char_p]
_getenv.restype = ctypes.c_char_p
_encoded = cache(os.fsencode)


def variable(name: str) -> str | None:
    """Return the value of an environment variable, None where it is not set."""
    value: bytes | None = _getenv(_encoded(name))
    return None if value is None else os.fsdecode(value)
