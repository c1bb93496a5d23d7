"""Lists of plugins that connections are tried with."""

from __future__ import annotations

from wrapper.pipeline import _REGISTRY

# The registry's codes, so that a new plugin is tested without being named here.
EACH = tuple(_REGISTRY)
# Two plugins for failover exclude each other.
ALL = ",".join(code for code in EACH if code != "failover")
