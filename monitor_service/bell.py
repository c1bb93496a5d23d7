"""The monitor's end of its bell, see `wrapper.monitor.bell`."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from wrapper.monitor.bell import cell, cell_at, header
from wrapper.monitor.generation import BELL_BYTES

logger = logging.getLogger(__name__)


class Bell:
    """Rings by writing to a file that workers have mapped. Not by mapping it here as well: on a full disk that may end us."""

    def __init__(self, descriptor: int, epoch: int) -> None:
        self._descriptor = descriptor
        self._epoch = epoch
        self._rings = 0

    def ring(self, message: bytes) -> None:
        """Leave a message that is about to be sent."""
        self._rings += 1
        with suppress(OSError):  # nothing depends on it
            os.pwrite(self._descriptor, cell(self._rings, message), cell_at(self._rings))
            os.pwrite(self._descriptor, header(self._epoch, self._rings), 0)


def hang_up(path: Path, epoch: int, group: int | None) -> Bell | None:
    """Put a new bell in the place of a dead monitor's, which its workers may still have mapped; readable to the group of a shared
    monitor. None where there is no room for it: then there is no bell."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # In full, not as a hole: nothing that is mapped may need room on the disk later.
            if os.write(descriptor, header(epoch, 0).ljust(BELL_BYTES, b"\0")) != BELL_BYTES:
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
    return Bell(descriptor, epoch)
