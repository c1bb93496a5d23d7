"""Random numbers of the package's own: the `random` module's are the application's, which must not find them taken by us, and they
are the same in every worker that seeds it alike or was forked without hooks."""

from __future__ import annotations

import random

chance = random.SystemRandom()
