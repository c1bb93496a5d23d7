"""Every connection parameter, declared once, in one module per subject. `wrapper.settings` reads connections' parameters by it."""

from __future__ import annotations

from wrapper.parameters import auth, cluster, core, failover, monitoring, splitting
from wrapper.parameters.setting import Form, Setting

SETTINGS: tuple[Setting, ...] = (
    *core.SETTINGS,
    *cluster.SETTINGS,
    *failover.SETTINGS,
    *monitoring.SETTINGS,
    *splitting.SETTINGS,
    *auth.SETTINGS,
)

__all__ = ["SETTINGS", "Form", "Setting"]
