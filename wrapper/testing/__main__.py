"""The lab from a shell: `python -m wrapper.testing up`, then commands to it from other terminals."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from wrapper.testing import LabClient, LabError, LocalAurora, LocalGlobalDatabase
from wrapper.testing.options import ENGINES, FLAVORS

_ON_INSTANCE = {
    "kill": "SIGKILL an instance",
    "hang": "SIGSTOP an instance: it accepts connections and never answers",
    "resume": "SIGCONT an instance",
    "stop": "shut an instance down in order",
    "start": "start an instance again",
    "rejoin": "make a former writer that was resumed a reader",
    "remove": "delete a reader from the cluster",
    "add": "have an instance that was removed appear as a new reader",
    "drop-sessions": "end every client session of an instance",
}
_ON_REGION = {
    "switchover": "move the writer to another region, without loss",
    "kill-region": "SIGKILL every instance of a region",
    "fail-over-region": "kill the writer's region and promote in another one; the lost region is detached",
    "rejoin-region": "make a region part of the database again",
}
_SWITCHES = {
    "refuse-logins": "have an instance refuse logins (28000; MySQL error 1045)",
    "too-many-connections": "have an instance run out of connections (53300; MySQL error 1040)",
}


def default_directory() -> Path:
    """Where `up` puts the lab and the other commands look for it."""
    return Path(tempfile.gettempdir()) / f"aurora-lab-of-{os.getuid()}"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(_COMMANDS.get(options.command, _simple)(options) or 0)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wrapper.testing", description="A local Aurora of real servers.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--directory", type=Path, default=default_directory(), help="where the lab lives (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[common], help="start a cluster and keep it until Ctrl-C or `down`")
    up.add_argument("--instances", type=int, default=3)
    up.add_argument("--engine", choices=ENGINES, help=f"default: {ENGINES[0]}")
    up.add_argument("--flavor", choices=tuple(FLAVORS), help="default: the engine's Aurora")
    up.add_argument("--regions", metavar="REGION,REGION", help="a Global Database over these, --instances in each")
    up.add_argument("--promote-delay", type=float, default=0.0, help="seconds from a failover's start to the promotion")
    up.add_argument("--dns-delay", type=float, default=0.0, help="seconds until the writer endpoint follows")
    up.add_argument("--keep-sessions", action="store_true", help="do not end the sessions of a promoted instance")
    up.add_argument("--synchronous", action="store_true", help="acknowledge commits only when a reader has them")
    up.add_argument("--tls", action="store_true", help="offer TLS, with a certificate of the lab's own authority")
    up.add_argument("--address-names", action="store_true", help="call instances by their address")
    for name, text in _ON_INSTANCE.items():
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("instance", help="an instance's id, or writer, or reader")
    for name, text in _SWITCHES.items():
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("instance", help="an instance's id, or writer, or reader")
        command.add_argument("--off", action="store_true", help="undo it")
    failover = commands.add_parser("failover", parents=[common], help="move the writer to another instance")
    failover.add_argument("target", nargs="?", help="the new writer (default: the most advanced reader)")
    for name, text in _ON_REGION.items():
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("region", help="the name of a region of a Global Database")
    upgrade = commands.add_parser("upgrade", parents=[common], help="restart the readers one by one, then move the writer")
    upgrade.add_argument("--pause", type=float, default=0.0, help="seconds that each reader is down")
    status = commands.add_parser("status", parents=[common], help="show every instance")
    status.add_argument("--json", action="store_true")
    commands.add_parser("env", parents=[common], help="print what to export for programs that use the lab")
    run = commands.add_parser("exec", parents=[common], help="wait for the lab and run a program with its environment")
    run.add_argument("program", nargs=argparse.REMAINDER, help="-- program arguments")
    commands.add_parser("reset", parents=[common], help="undo every fault")
    commands.add_parser("down", parents=[common], help="end the lab")
    return parser


def _up(options: argparse.Namespace) -> None:
    kind = LocalGlobalDatabase if options.regions else LocalAurora
    regions = {"regions": options.regions.split(",")} if options.regions else {}
    with kind(
        options.instances,
        flavor=options.flavor,
        engine=options.engine,
        promote_delay=options.promote_delay,
        dns_delay=options.dns_delay,
        drop_sessions=not options.keep_sessions,
        synchronous=options.synchronous,
        address_names=options.address_names,
        tls=options.tls,
        directory=options.directory,
        **regions,
    ) as lab:
        for name, value in _environment(lab).items():
            print(f"export {name}={shlex.quote(value)}")
        _show(lab.status())
        sys.stdout.flush()
        try:
            lab.wait()
        except KeyboardInterrupt:
            pass


def _environment(lab: LabClient) -> dict[str, str]:
    return {
        **lab.environment(),
        "DATABASE_ENGINE": lab.engine,
        "DATABASE_DSN": lab.dsn(),
        "DATABASE_INSTANCES": lab.instance_host_pattern,
    }


def _show(status: dict[str, Any]) -> None:
    for instance in status["instances"]:
        notes = [name.replace("_", " ") for name in ("stale", "refuses_logins", "full") if instance[name]]
        print(
            f"{instance['id']:12} {instance['role']:7} {instance['state']:8} {instance['address']:22} {instance['endpoint']}",
            *notes,
        )


def _status(options: argparse.Namespace) -> None:
    status = LabClient(options.directory).status()
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        _show(status)


def _env(options: argparse.Namespace) -> None:
    for name, value in _environment(LabClient(options.directory)).items():
        print(f"export {name}={shlex.quote(value)}")


def _exec(options: argparse.Namespace) -> None:
    from wrapper.testing.waiting import wait_for_lab

    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise LabError("no program given: write it after --")
    lab = wait_for_lab(options.directory)
    os.execvpe(program[0], program, {**os.environ, **_environment(lab)})


def _failover(options: argparse.Namespace) -> None:
    report = LabClient(options.directory).failover(options.target)
    print(f"{report.old_writer} -> {report.new_writer}, promoted after {report.timings['promoted'] * 1000:.0f} ms")


def _upgrade(options: argparse.Namespace) -> None:
    report = LabClient(options.directory).upgrade(pause=options.pause)
    print(f"{report.old_writer} -> {report.new_writer}, {report.timings['without_writer'] * 1000:.0f} ms without a writer")


def _simple(options: argparse.Namespace) -> None:
    arguments: dict[str, Any] = {}
    if "instance" in options:
        arguments["name"] = options.instance
    if "region" in options:
        arguments["region"] = options.region
    if "off" in options:
        arguments["on"] = not options.off
    LabClient(options.directory).request(options.command.replace("-", "_"), **arguments)


def _down(options: argparse.Namespace) -> None:
    lab = LabClient(options.directory)
    lab.request("down")
    deadline = time.monotonic() + 30.0
    while options.directory.exists():  # so that `up` can follow at once
        if time.monotonic() > deadline:
            raise LabError(f"{options.directory} is still there: the lab did not end within 30 s")
        time.sleep(0.02)


_COMMANDS = {"up": _up, "status": _status, "env": _env, "exec": _exec, "failover": _failover, "upgrade": _upgrade, "down": _down}

if __name__ == "__main__":
    sys.exit(main())
