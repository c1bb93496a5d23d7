"""Loopback addresses that nobody uses."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

from wrapper.testing.errors import LabError


def free_network(numbers: Iterable[int], usual_port: int, other_ports: Iterable[int] = ()) -> tuple[str, int]:
    """Return three numbers of a loopback network, and a port that is free on its addresses that end in `numbers`.

    `other_ports` are free as well, given as differences to the port.
    """
    numbers, differences = tuple(numbers), (0, *other_ports)
    for _ in range(200):
        prefix = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}"
        port = usual_port if random.random() < 0.9 else random.randint(20000, 30000)
        try:
            for number in numbers:
                for difference in differences:
                    with socket.socket() as probe:
                        probe.bind((f"{prefix}.{number}", port + difference))
        except OSError:
            continue
        return prefix, port
    raise LabError("no free loopback addresses found (Linux gives 127.0.0.0/8 to every machine; other systems need aliases)")
