"""The rows of the table, one module each, in the order of the table."""

NAMES = (
    "query_cost",
    "plugin_cost",
    "fetch_cost",
    "import_cost",
    "worker_footprint",
    "monitoring_connections",
    "verdict_spread",
    "writer_killed",
    "writer_hung",
    "writer_hung_tuned",
    "call_in_flight",
    "monitor_killed",
    "monitor_and_writer_lost",
    "old_writer_resumed",
    "monitor_paused",
    "forked_worker",
    "durability",
)
