"""What is logged, and that no password is: at any level, by anybody, whatever goes wrong."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import Connect, eventually
from tests.integration.test_failover import is_superseded
from wrapper import AwsWrapperConnection
from wrapper.errors import AwsWrapperError
from wrapper.monitor.launch import is_served
from wrapper.monitor.paths import MonitorPaths
from wrapper.testing import LocalAurora

ROOT = Path(__file__).parents[2]
WRONG = "wr0ng-s3cret"


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that is logged in this process, by whichever library."""
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture
def monitor_log(aurora: LocalAurora, monitor_directory: Path) -> Iterator[Callable[[], str]]:
    """A monitor that logs everything; call the result for what it has written so far.

    After the lab: the monitor resolves the lab's names by the environment it is started with.
    """
    log = monitor_directory / "everything.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "monitor_service", "run", "--log-level", "debug"]
        monitor = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        paths = MonitorPaths(monitor_directory)
        eventually(lambda: is_served(paths), "the monitor to listen")
        yield log.read_text
    finally:
        monitor.terminate()
        monitor.wait(20)


def status() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "monitor_service", "status", "--json"], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


def test_no_password_is_logged_in_a_failover(
    everything: pytest.LogCaptureFixture, monitor_log: Callable[[], str], watched: Connect, aurora: LocalAurora
) -> None:
    connection = watched()
    aurora.kill("writer")
    aurora.promote_later(0.3, rejoin=False)
    eventually(lambda: is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute("SELECT 1")
    assert "failed over from" in everything.text
    assert "WRITER" in monitor_log()
    for text in (everything.text, monitor_log(), status(), str(caught.value), repr(connection), repr(connection.plugin_service)):
        assert aurora.password not in text


def test_no_password_is_logged_when_the_failover_finds_nobody(
    everything: pytest.LogCaptureFixture, connect: Connect, aurora: LocalAurora
) -> None:
    connection = connect(monitor_mode="off", failover_timeout_sec=1)
    for instance in aurora.instances:
        aurora.kill(instance.id)
    with pytest.raises(wrapper.FailoverFailedError) as caught:
        connection.execute("SELECT 1")
    assert "direct search" in everything.text
    assert aurora.password not in everything.text + str(caught.value)


def test_no_password_is_logged_when_it_is_wrong(
    everything: pytest.LogCaptureFixture, connect: Connect, aurora: LocalAurora
) -> None:
    with pytest.raises(psycopg.OperationalError, match="password") as caught:
        connect(password=WRONG)
    assert WRONG not in everything.text + str(caught.value)
    assert aurora.password not in everything.text + str(caught.value)


def test_no_password_is_logged_when_the_monitors_is_wrong(
    everything: pytest.LogCaptureFixture, monitor_log: Callable[[], str], connect: Connect, aurora: LocalAurora
) -> None:
    connect(**{"monitoring-password": WRONG})
    eventually(lambda: "LOGIN REFUSED" in monitor_log(), "the monitor to be refused")
    eventually(lambda: "cannot log in" in everything.text, "the monitor to say so")
    for text in (everything.text, monitor_log(), status()):
        assert WRONG not in text
        assert aurora.password not in text


@pytest.mark.parametrize(
    "text",
    [
        "host=a password={0} b",
        "password='{0}",
        "postgresql://u:{0}@[::1/d",
        "postgresql://u:{0}@a:b%zz/d",
        "host=a passwort={0}",
        # libpq takes part of these passwords for a port, a host or a database.
        "postgresql://u:{0}/x@a/d",
        "postgresql://u:x@{0}@a/d",
        "postgresql://u:1/{0}@a/d?sslmode=disable",
    ],
)
def test_no_password_is_shown_of_text_that_cannot_be_read(everything: pytest.LogCaptureFixture, text: str) -> None:
    with pytest.raises(AwsWrapperError) as caught:
        AwsWrapperConnection.connect(psycopg.Connection.connect, text.format(WRONG))
    assert WRONG not in everything.text + str(caught.value)
    assert caught.value.__cause__ is None or WRONG not in str(caught.value.__cause__)


def test_no_password_is_shown_of_a_connect_function_that_is_nobodys(everything: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AwsWrapperError, match=r"^partial belongs to no driver") as caught:
        AwsWrapperConnection.connect(partial(psycopg.Connection.connect, password=WRONG), "host=a")
    assert WRONG not in everything.text + str(caught.value)


def test_the_page_names_every_module_that_logs() -> None:
    """The rows of docs/logging.md, `(logger, level)`, are the log calls of the source, each by its module's own logger."""
    levels = {"exception": "ERROR"}
    found: set[tuple[str, str]] = set()
    for path in [*(ROOT / "wrapper").rglob("*.py"), *(ROOT / "monitor_service").rglob("*.py")]:
        source = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        calls = re.findall(r"\blogger\.(debug|info|warning|error|exception)\(", source)
        assert bool(calls) == ("logger = logging.getLogger(__name__)" in source), name
        found |= {(name, levels.get(call, call.upper())) for call in calls}
    page = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
    told: set[tuple[str, str]] = set()
    logger = ""
    for cell, level in re.findall(r"(?m)^\| (?:`([\w.]+)` )?\| ([A-Z, ]+) \|", page):
        logger = cell or logger
        told |= {(logger, one) for one in level.split(", ")}
    assert told == found


# -- set_logger ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("wrapper.test_logging")
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def test_set_logger_writes_to_standard_error_once(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    handler = wrapper.set_logger(logger.name)
    assert wrapper.set_logger(logger.name) is handler
    logger.debug("said %s", "once")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("said once") == 1
    assert f" {logger.name}:{test_set_logger_writes_to_standard_error_once.__name__} [DEBUG] [MainThread] - " in output.err


def test_set_logger_applies_level_and_format_every_time(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    wrapper.set_logger(logger.name, "WARNING")
    logger.info("unheard")
    wrapper.set_logger(logger.name, logging.INFO, "<%(message)s>")
    logger.info("heard")
    assert capsys.readouterr().err == "<heard>\n"


def test_set_logger_leaves_other_handlers_alone(logger: logging.Logger) -> None:
    own = logging.StreamHandler(io.StringIO())
    logger.addHandler(own)
    handler = wrapper.set_logger(logger.name)
    assert logger.handlers == [own, handler]
    logger.debug("for both")
    assert own.stream.getvalue() == "for both\n"


@pytest.mark.parametrize(
    ("arguments", "named"), [({"level": "LOUD"}, "level='LOUD'"), ({"format_string": "%(x)"}, "format_string")]
)
def test_set_logger_names_what_it_does_not_understand(logger: logging.Logger, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(AwsWrapperError, match=named):
        wrapper.set_logger(logger.name, **arguments)
    assert logger.handlers == []
