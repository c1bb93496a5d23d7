"""The monitor's end of its bell, see `wrapper.monitor.bell`."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from wrapper.monitor.bell import EPOCH_AT, PAGE_BYTES, RINGS_BYTES, WORD, slot_at

logger = logging.getLogger(__name__)


class Bell:
    """Rings by writing to a file that workers have mapped. Not by mapping it here as well: on a full disk that may end us."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rings = 0

    def ring(self, topic: str, seq: int) -> None:
        """Say that the update of a topic with this number is about to be sent."""
        self._rings = (self._rings + 1) % (1 << 8 * RINGS_BYTES)
        with suppress(OSError):  # nothing depends on it
            os.pwrite(self._descriptor, seq.to_bytes(WORD, sys.byteorder), slot_at(topic))
            os.pwrite(self._descriptor, self._rings.to_bytes(RINGS_BYTES, sys.byteorder), 0)


def hang_up(path: Path, epoch: int, group: int | None) -> Bell | None:
    """Put a new bell in the place of a dead monitor's, which its workers may still have mapped; readable to the group of a shared
    monitor. None where there is no room for it: then there is no bell."""
    page = bytearray(PAGE_BYTES)
    page[EPOCH_AT : EPOCH_AT + WORD] = epoch.to_bytes(WORD, sys.byteorder)
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, page) != PAGE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if group is not None:
                os.fchown(descriptor, -1, group)
                os.fchmod(descriptor, 0o640)
            new.rename(path)
        except OSError:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        logger.warning(
            "%s cannot be written: %s; workers that compute hear of an event some milliseconds later", path, error.strerror
        )
        return None
    return Bell(descriptor)
