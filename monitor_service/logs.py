"""The monitor's log: one line per event, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import datetime, timezone

import msgspec

from wrapper.monitor.messages import Journal

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# The attribute of a log record that holds a transition's parts.
ENTRY = "journal_entry"


# Control characters, and those by which a terminal changes the direction of what follows.
_INVISIBLE = (*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = {code: repr(chr(code))[1:-1] for code in _INVISIBLE}


def one_line(text: str) -> str:
    """Return a text that a server or a worker may have made up, fit for a line of a log or a terminal.

    >>> one_line("a\\nb\\x1b[2J")
    'a\\\\nb\\\\x1b[2J'
    """
    return text.translate(_VISIBLE)


class TextFormatter(logging.Formatter):
    """One line per event, and a traceback on lines of its own. In UTC: so are the times in the evidence, and in what `events`
    prints."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One object per line: `at`, `level`, `logger`, `message`; of a transition also `subject`, `event`, `evidence`, `cluster`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry = getattr(record, ENTRY, None)
        if isinstance(entry, Journal):
            line.update({name: value for name, value in msgspec.to_builtins(entry).items() if name != "at"})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str, style: str) -> None:
    """Log to standard error. `style`: `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
