"""What the command line says to whoever made a mistake, or meets a monitor that cannot help: the parameter, and the way out."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from monitor_service.cli import main
from monitor_service.client import NoMonitorError, find
from monitor_service.election import Election, holder
from monitor_service.keys import make_keys
from wrapper.monitor.paths import DIRECTORY_VARIABLE, URL_VARIABLE, MonitorDirectoryError, MonitorPaths, locate, prepare
from wrapper.version import __version__

from .harness import MonitorProcess, run
from .servers import eventually

Start = Callable[..., MonitorProcess]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--nonsense"], "'--nonsense' is not understood: see aws-shared-monitor run --help"),
        (["run", "--dump"], "'--dump' is not understood"),
        (["nonsense"], "invalid choice: 'nonsense' (choose from"),
        (["run", "--linger", "5"], "--linger is for --on-demand"),
        (["run", "--keys", "/tmp"], "--keys is for --listen"),
        (["run", "--on-demand", "--take-over"], "--take-over and --on-demand exclude each other"),
    ],
)
def test_options_are_not_passed_over_in_silence(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"aws-shared-monitor {__version__}\n"


@pytest.mark.parametrize("given", [DIRECTORY_VARIABLE, "--directory"])
@pytest.mark.parametrize("trouble", ["long", "file", "link", "below a file"])
def test_a_wrong_directory_is_told_by_the_parameter_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, trouble: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    directory = {"long": tmp_path / ("x" * 120), "below a file": tmp_path / "file" / "x"}.get(trouble, tmp_path / trouble)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(directory) if given == DIRECTORY_VARIABLE else "/nowhere")
    with pytest.raises(MonitorDirectoryError) as caught:
        prepare(directory if given == "--directory" else None)
    said = str(caught.value)
    assert repr(str(directory)) in said
    if trouble in ("file", "link"):
        assert ("is not a directory" if trouble == "file" else "is a symbolic link") in said
    else:
        assert given in said


def test_a_directory_counts_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status", "--directory", "below"]) == 3
    assert f"(looked in {tmp_path}/below: No such file or directory)" in capsys.readouterr().err


def test_a_wrong_address_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "nonsense")
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_KEYS", "/nowhere")
    with pytest.raises(MonitorDirectoryError, match=f"{URL_VARIABLE}='nonsense' is not tcp://HOST:PORT"):
        locate()


def test_what_by_hand_goes_to_the_background_says_first_that_it_cannot(directory: Path) -> None:
    directory.chmod(0o755)
    done = run(directory, "run", "--detach")
    assert done.returncode == 1
    assert "run chmod 700" in done.stderr


def test_the_log_has_one_time_for_lines_and_evidence(start_monitor: Start) -> None:
    """UTC, wherever the machine is: a verdict's evidence says when the host answered last."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TZ", "Asia/Kolkata")
        monitor = start_monitor()
    time.tzset()  # the C library may have looked meanwhile
    began = datetime.strptime(monitor.log.read_text()[:24], "%Y-%m-%d %H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert abs(datetime.now(timezone.utc) - began) < timedelta(hours=1)


def test_a_key_directory_that_cannot_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "/proc/nowhere", "alice"]) == 1
    assert "key directory '/proc/nowhere' cannot be used: No such file or directory" in capsys.readouterr().err


def test_an_address_that_is_taken(start_monitor: Start, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", ["alice"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        monitor = start_monitor("--listen", url, "--keys", str(tmp_path / "keys"), wait=False)
        assert monitor.process.wait(60) == 1
    said = monitor.log.read_text()
    assert f"--listen {url}: tcp://127.0.0.1:" in said
    assert "cannot be served: Address already in use" in said
    assert not monitor.paths.control.exists(), "what it had bound is gone again"


# -- other monitors ------------------------------------------------------------------------------------------------------------


def test_no_monitor_is_ended_that_was_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another application's monitor of the same user, where the variable of this one leads to none."""
    other = tmp_path / "aws-shared-monitor"
    other.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "mine"))
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    election = Election(MonitorPaths(other))
    assert election.try_acquire()
    try:
        assert find(None).directory == other, "looking is free"
        with pytest.raises(NoMonitorError, match=f"one runs in {other}: if you mean that one, add --directory {other}"):
            find(None, elsewhere=False)
        for command in ("stop", "drain"):
            assert main([command]) == 3
    finally:
        election.release()


def test_a_stopped_monitor_is_told_by_its_process(directory: Path, start_monitor: Start, monitor: MonitorProcess) -> None:
    found = holder(monitor.paths)
    assert found is not None
    assert found[0] == monitor.pid
    monitor.pause()
    eventually(lambda: holder(monitor.paths) == (monitor.pid, "T"), "the process to be stopped")
    way_out = f"its process {monitor.pid} is stopped (SIGSTOP); 'kill -CONT {monitor.pid}' has it go on"
    done = run(directory, "drain")
    assert done.returncode == 3
    assert done.stderr.count(way_out) == 1
    waiting = start_monitor("--take-over", wait=False)
    eventually(lambda: way_out in waiting.log.read_text(), "the waiting one to say for whom it waits")
