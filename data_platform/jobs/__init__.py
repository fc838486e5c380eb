"""Jobs, schedules, backfill policies and the allow-list of schedules per environment."""
