"""DDL of the loader's own tables in the target ClickHouse (sql/platform_tables.sql), plain or replicated."""

from importlib.resources import files

DATABASE = "platform"


def platform_ddl(cluster: str | None = None) -> list[str]:
    """The statements that make the `platform` database, in order; every one may be repeated."""
    text = files("data_platform.loading").joinpath("sql/platform_tables.sql").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    replicated = "Replicated" if cluster is not None else ""
    filled = (
        "\n".join(lines)
        .replace("{cluster}", f" ON CLUSTER '{cluster}'" if cluster is not None else "")
        .replace("{replacing}", f"{replicated}ReplacingMergeTree")
        .replace("{merge_tree}", f"{replicated}MergeTree")
        .replace(
            "{window}",
            "replicated_deduplication_window" if cluster is not None else "non_replicated_deduplication_window",
        )
    )
    # A statement ends with a semicolon at the end of its line; inside a comment one may stand anywhere else.
    return [statement.strip().removesuffix(";") for statement in filled.split(";\n") if statement.strip(" \n;")]
