"""What watches: each actor is one task with a private state, independent of all others."""
