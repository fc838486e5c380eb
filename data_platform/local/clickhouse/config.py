"""The engine's configuration file: what a server has in config.xml and users.xml.

Belongs here: query log, named collections, memory, profile. Does not: anything a client may set per query.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

S3_COLLECTION = "platform_s3"
RAW_QUERY_LOG = "query_log_raw"
# A string setting without effect unless the query cache is used; it carries the caller's query id into the process
# list and the query log, and leaves log_comment to the caller.
QUERY_ID_SETTING = "query_cache_tag"
# The other engines, the tests and the browser share the machine.
MEMORY_SHARE = 0.45
CACHE_BYTES = 256 << 20


def write(state: Path, env: Mapping[str, str]) -> Path:
    """Write the configuration into `state` (readable by the owner alone: it holds the S3 keys); returns its path."""
    users = state / "users.xml"
    _write_private(users, _USERS)
    config = state / "config.xml"
    _write_private(
        config,
        _CONFIG.format(
            log=RAW_QUERY_LOG,
            users=escape(str(users)),
            memory=int(_physical_memory() * MEMORY_SHARE),
            cache=CACHE_BYTES,
            collections=_named_collection(env),
        ),
    )
    return config


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _named_collection(env: Mapping[str, str]) -> str:
    names = {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    }
    entries = "".join(f"<{key}>{escape(env[name])}</{key}>" for key, name in names.items() if env.get(name))
    return f"<{S3_COLLECTION}>{entries}</{S3_COLLECTION}>" if entries else ""


_CONFIG = """<clickhouse>
  <display_name>embedded</display_name>
  <users_config>{users}</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>{cache}</mark_cache_size>
  <query_log>
    <database>system</database>
    <table>{log}</table>
    <ttl>event_date + INTERVAL 7 DAY DELETE</ttl>
    <flush_interval_milliseconds>500</flush_interval_milliseconds>
  </query_log>
  <named_collections>{collections}</named_collections>
</clickhouse>
"""

# log_queries is off in the profile so that the front's own SET and USE statements stay out of the query log; the front
# switches it on for the caller's statement, unless the caller says otherwise.
_USERS = """<clickhouse>
  <profiles><default><log_queries>0</log_queries></default></profiles>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <access_management>1</access_management>
      <named_collection_control>1</named_collection_control>
      <show_named_collections>1</show_named_collections>
    </default>
  </users>
</clickhouse>
"""
