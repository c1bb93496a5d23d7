"""Read/write splitting, by topology, by two endpoints and in a Global Database."""

from __future__ import annotations

from wrapper.parameters.forms import HOST_AND_PORT, REGION
from wrapper.parameters.setting import Setting

SETTINGS = (
    Setting(
        "srw_write_endpoint",
        str,
        None,
        "Endpoint for read_only = False. Required.",
        plugin="srw",
        form=HOST_AND_PORT,
    ),
    Setting("srw_read_endpoint", str, None, "Endpoint for read_only = True. Required.", plugin="srw", form=HOST_AND_PORT),
    Setting("srw_verify_new_connections", bool, True, "Ask each new connection for its role.", plugin="srw"),
    Setting(
        "srw_verify_initial_connection_type",
        str,
        None,
        "Role that the first connection must have.",
        plugin="srw",
        choices=("reader", "writer"),
    ),
    Setting(
        "srw_connect_retry_timeout_ms",
        int,
        60000,
        "Limit for all attempts to get a connection of the right role.",
        unit="ms",
        plugin="srw",
        minimum=1,
    ),
    Setting("srw_connect_retry_interval_ms", int, 1000, "Pause between them.", unit="ms", plugin="srw", minimum=1),
    Setting(
        "gdb_rw_home_region",
        str,
        None,
        "The region the application runs in. Default: the endpoint's; needed where the endpoint has none.",
        plugin="gdb_rw",
        form=REGION,
    ),
    Setting("gdb_rw_restrict_writer_to_home_region", bool, True, "Refuse a writer in another region.", plugin="gdb_rw"),
    Setting("gdb_rw_restrict_reader_to_home_region", bool, True, "Refuse readers in other regions.", plugin="gdb_rw"),
    Setting(
        "gdb_enable_global_write_forwarding",
        bool,
        False,
        "Stay on the reader of a secondary region for writes and let the database forward them.",
        plugin="gdb_rw",
    ),
)
