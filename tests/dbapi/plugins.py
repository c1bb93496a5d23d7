"""Lists of plugins that connections are tried with."""

from __future__ import annotations

from wrapper.pipeline import _ALTERNATIVES, _REGISTRY

# The registry's codes, so that a new plugin is tested without being named here.
EACH = tuple(_REGISTRY)
# Plugins for failover exclude each other.
ALL = ",".join(code for code in EACH if code not in _ALTERNATIVES - {"failover_v2"})
