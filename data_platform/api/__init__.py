"""The unload API (FastAPI)."""
