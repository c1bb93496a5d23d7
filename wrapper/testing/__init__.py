"""A local Aurora made of real servers, for tests, demonstrations and development: no AWS, no containers, no DNS, no root.

`LocalAurora` starts one from Python, `python -m wrapper.testing up` from a shell, and the pytest fixtures `aurora_lab` and `aurora`
from tests; `LocalGlobalDatabase` starts one over two regions. `FaultProxy` stands in front of any TCP server and plays network
faults. See docs/lab.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wrapper.testing.client import FailoverReport, Instance, LabClient
    from wrapper.testing.errors import LabError
    from wrapper.testing.fault_proxy import FaultProxy
    from wrapper.testing.global_database import LocalGlobalDatabase
    from wrapper.testing.local import LocalAurora

_HOMES = {
    "FailoverReport": "wrapper.testing.client",
    "FaultProxy": "wrapper.testing.fault_proxy",
    "Instance": "wrapper.testing.client",
    "LabClient": "wrapper.testing.client",
    "LabError": "wrapper.testing.errors",
    "LocalAurora": "wrapper.testing.local",
    "LocalGlobalDatabase": "wrapper.testing.global_database",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


__all__ = ["FailoverReport", "FaultProxy", "Instance", "LabClient", "LabError", "LocalAurora", "LocalGlobalDatabase"]
