"""What holds for all tests."""

from __future__ import annotations

import hypothesis

# An example that takes long tells of the machine, not of the code.
hypothesis.settings.register_profile("machine", deadline=None)
hypothesis.settings.load_profile("machine")
