"""The lab's PostgreSQL: servers with streaming replication, dressed as Aurora by SQL functions."""
