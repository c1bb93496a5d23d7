"""Pure decisions: functions from facts, settings and a time to a value. No I/O, no clock, no thread, no driver."""
