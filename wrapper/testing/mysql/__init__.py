"""The lab's MySQL: MariaDB servers with GTID replication, and in front of each a layer that speaks Aurora MySQL's own SQL."""
