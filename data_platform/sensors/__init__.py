"""What happened outside -> which partitions are wanted. Thin, idempotent, never acknowledging inside a tick."""
