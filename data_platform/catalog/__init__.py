"""What moves: datasets, domains and services, read from catalog/*.yaml into frozen models."""
