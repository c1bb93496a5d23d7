"""What a kind of database server must offer to be a lab's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from wrapper.testing.certificates import Certificates
from wrapper.testing.errors import LabError
from wrapper.testing.options import Options
from wrapper.testing.server import Server

DATABASE = "app"
USER = "app"


class Engine(ABC):
    """Makes the servers of one cluster."""

    superuser: ClassVar[str]
    # Tried first, because examples and people expect it.
    usual_port: ClassVar[int]
    # Beside the port that applications use, as differences to it: others that each server wants.
    other_ports: ClassVar[tuple[int, ...]] = ()
    # What is added to the last number of an instance's address for the server itself, if something stands in front of it.
    direct_offset: int = 0

    # The servers' certificate, from before they are made; None for servers without TLS.
    certificates: Certificates | None = None

    def __init__(self, options: Options, password: str, superuser_password: str) -> None:
        self.options = options
        self.directory = Path(options.directory)
        self.password = password
        self.superuser_password = superuser_password

    def admin_port(self, port: int) -> int:
        """Where the superuser connects, given the port that applications use."""
        return port

    @abstractmethod
    def resource_id(self, identity: str) -> str | int:
        """By what an RDS Multi-AZ DB cluster calls the instance."""

    @abstractmethod
    def make_server(self, identity: str, address: str, port: int, direct_address: str) -> Server:
        """Return a server that is not there yet."""

    @abstractmethod
    def found(self, writer: Server, readers: list[Server]) -> None:
        """Make a new cluster of these servers, start them, and return when all readers follow."""


def make_engine(options: Options, password: str, superuser_password: str) -> Engine:
    """Return the engine of the options' flavor. Raises `LabError` when a program or a driver that it needs is missing."""
    try:
        if options.engine == "mysql":
            from wrapper.testing.mysql.engine import MySqlEngine

            return MySqlEngine(options, password, superuser_password)
        from wrapper.testing.postgresql.engine import PostgresEngine

        return PostgresEngine(options, password, superuser_password)
    except ModuleNotFoundError as error:
        extra = "mysql" if options.engine == "mysql" else "psycopg"
        raise LabError(f"flavor={options.flavor!r} needs a driver: pip install 'aws-shared-monitor-wrapper[{extra}]'") from error
