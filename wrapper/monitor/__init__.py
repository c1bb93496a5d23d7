"""The worker's side of the shared monitor: what it says on the wire, the state it publishes, the client and how it is started."""
