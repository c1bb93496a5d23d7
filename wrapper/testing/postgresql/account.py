"""As whom PostgreSQL's programs run: it refuses to be root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrapper.testing.errors import LabError


@dataclass(frozen=True, slots=True)
class Account:
    """`user` and `group` ids to change to (None: stay who we are), and a command to put in front of each program."""

    user: int | None = None
    group: int | None = None
    prefix: tuple[str, ...] = ()

    def own(self, path: Path) -> None:
        """Give a file or directory to the account."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    @property
    def identity(self) -> dict[str, Any]:
        """The arguments of `subprocess.Popen` that change to the account."""
        return {} if self.user is None else {"user": self.user, "group": self.group, "extra_groups": []}


def choose_account(binaries: Path, directory: Path) -> Account:
    """Return an account that can run the programs in `binaries` and reach `directory`.

    For root that is `postgres` or `nobody`; where these cannot reach the files (a virtual environment below /root), a user
    namespace in which we are not root. Raises `LabError` when nothing works.
    """
    if os.geteuid() != 0:
        return Account()
    accounts = []
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        accounts.append(Account(entry.pw_uid, entry.pw_gid))
    accounts.append(Account(prefix=("unshare", "--user", "--map-user=65534", "--map-group=65534")))
    for account in accounts:
        if _works(account, binaries, directory):
            return account
    raise LabError(
        f"PostgreSQL refuses to run as root, and neither postgres nor nobody can reach {binaries} and {directory}: use places that "
        "everybody may enter, allow user namespaces, or start the lab as an ordinary user"
    )


def _works(account: Account, binaries: Path, directory: Path) -> bool:
    script = 'cd "$0" && exec "$1" --version'
    command = [*account.prefix, "/bin/sh", "-c", script, str(directory), str(binaries / "postgres")]
    try:
        done = subprocess.run(command, capture_output=True, cwd="/", timeout=10, check=False, **account.identity)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
