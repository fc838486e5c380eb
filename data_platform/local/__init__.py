"""The embedded cloud: a supervisor and one child process per engine. Nothing of the platform imports it but cli."""
