"""Log lines on standard error in one call, for programs that do not set up `logging` themselves."""

from __future__ import annotations

import logging
import sys

from wrapper.errors import AwsWrapperError

FORMAT = "%(asctime)s.%(msecs)03d %(name)s:%(funcName)s [%(levelname)s] [%(threadName)s] - %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """The handler that `set_logger` adds, told from those of the application."""


def set_logger(name: str = "wrapper", level: int | str = logging.DEBUG, format_string: str | None = None) -> logging.Handler:
    """Have a logger and those below it write to standard error, from `level` on; return the handler.

    `format_string` is one of `logging.Formatter`. Calling it again changes level and format of the same handler. Handlers of the
    application stay as they are, and go on getting the same records. Raises `AwsWrapperError` for a level or format that `logging`
    does not understand.
    """
    try:
        formatter = logging.Formatter(format_string or FORMAT, TIME_FORMAT)
    except ValueError as error:
        raise AwsWrapperError(f"format_string={format_string!r} is not valid: {error}") from None
    logger = logging.getLogger(name)
    try:
        logger.setLevel(level)
    except (TypeError, ValueError):
        raise AwsWrapperError(
            f"level={level!r} is not valid: expected a level of the logging module, such as logging.INFO or 'INFO'"
        ) from None
    handler = next((handler for handler in logger.handlers if isinstance(handler, _Handler)), None)
    if handler is None:
        handler = _Handler()
        logger.addHandler(handler)
    # The stream may have been replaced since the last call.
    handler.setStream(sys.stderr)
    handler.setFormatter(formatter)
    return handler
