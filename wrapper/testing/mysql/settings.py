"""What every MariaDB server of the lab is told on its command line."""

from __future__ import annotations

SETTINGS = (
    # What Aurora has, or replication without shared storage needs.
    "--skip-name-resolve", "--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci",
    "--log-bin=binlog", "--relay-log=relay", "--log-slave-updates", "--binlog-format=ROW", "--gtid-strict-mode=1",
    "--skip-slave-start", "--slave-net-timeout=5", "--secure-file-priv=", "--max-allowed-packet=64M", "--connect-timeout=600",
    "--extra-max-connections=60",
    # Speed and size: what is written is safe from the end of the server, but not from the machine's.
    "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-doublewrite=0", "--innodb-fast-shutdown=2",
    "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M",
    "--innodb-buffer-pool-dump-at-shutdown=0", "--innodb-buffer-pool-load-at-startup=0",
    # For the connection attributes of sessions, and nothing else: the rest would take 90 MB.
    "--performance-schema=on", "--performance-schema-instrument=%=off",
    *(
        f"--performance-schema-{what}=0"
        for what in (
            "accounts-size", "digests-size", "hosts-size", "users-size", "max-cond-classes", "max-file-classes",
            "max-memory-classes", "max-mutex-classes", "max-rwlock-classes", "max-socket-classes", "max-stage-classes",
            "max-statement-classes", "max-statement-stack", "events-stages-history-long-size", "events-stages-history-size",
            "events-statements-history-long-size", "events-statements-history-size", "events-transactions-history-long-size",
            "events-transactions-history-size", "events-waits-history-long-size", "events-waits-history-size",
        )
    ),
)  # fmt: skip
