"""Settings: the defaults, every mistake at once, no secret in any text, and when the embedded cloud's file counts."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from data_platform.cli.settings import masked, reference
from data_platform.errors import ConfigurationError
from data_platform.settings import (
    ENDPOINT_VARIABLES,
    Settings,
    embedded_env_file,
    load_settings,
    origin_of,
    unknown_variables,
    variable_of,
    variables_of,
)

pytestmark = pytest.mark.unit
SECRET = "hunter2-geheim"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name != "PATH":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # where no embedded cloud runs


def embedded_cloud(home: Path) -> None:
    file = embedded_env_file(home)
    file.parent.mkdir(parents=True)
    file.write_text("CLICKHOUSE_HOST=127.0.0.1\nCLICKHOUSE_PORT=4711\nAWS_ENDPOINT_URL=http://127.0.0.1:4712\n")


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load_settings()
    assert (settings.env, settings.raw_bucket, settings.redshift_port) == ("dev", "data-platform-raw", 5439)
    assert settings.clickhouse_host is settings.postgres_url is settings.aws_endpoint_url is None
    assert (settings.catalog / "domains.yaml").is_file()
    assert {origin_of(settings, name) for name in Settings.model_fields} == {"default"}


def test_every_mistake_is_reported_at_once_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes = {
        "REDSHIFT_PORT": "99999",
        "CLICKHOUSE_PORT": "http",
        "DATA_PLATFORM_ENV": "Prod_1",
        "DATA_PLATFORM_SCHEDULES": "some, more",
        "DATA_PLATFORM_CLICKHOUSE_SECURE": "perhaps",
        "POSTGRES_URL": f"mysql://u:{SECRET}@h/d",
    }
    for name, value in mistakes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    text = str(caught.value)
    assert [name for name in mistakes if f"  {name}: " not in text] == []
    assert text.count("\n  ") == len(mistakes) + 1  # one line each, and the hint


def test_no_secret_reaches_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert len(secrets) >= 7
    for name in secrets:
        url = "postgres_url" in name
        monkeypatch.setenv(variable_of(name), f"postgresql://u:{SECRET}@h/d" if url else SECRET)
    settings = load_settings()
    assert all(SECRET in getattr(settings, name).get_secret_value() for name in secrets)
    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
        assert SECRET not in text


def test_no_secret_reaches_the_message_of_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", f"mysql://u:{SECRET}@h/d")
    monkeypatch.setenv("REDSHIFT_PORT", SECRET)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql+psycopg://user:pw@host:5432/db", "postgresql+psycopg://user:***@host:5432/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://u:p@w@host/db", "***"),
        ("postgresql://u:p/w@host/db", "***"),
        ("plain", "***"),
        ("", ""),
    ],
)
def test_a_secret_is_shown_masked(value: str, shown: str) -> None:
    assert masked(SecretStr(value)) == shown


def test_the_embedded_cloud_is_used_when_the_environment_names_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded_cloud(tmp_path / "state")
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DATA_PLATFORM_LOG_LEVEL", "DEBUG")
    settings = load_settings()
    assert (settings.clickhouse_host, settings.clickhouse_port) == ("127.0.0.1", 4711)
    assert origin_of(settings, "clickhouse_port") == "embedded cloud"
    assert origin_of(settings, "log_level") == "environment"
    assert origin_of(settings, "env") == "default"


@pytest.mark.parametrize("variable", ENDPOINT_VARIABLES)
def test_one_endpoint_in_the_environment_leaves_the_embedded_cloud_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    embedded_cloud(tmp_path / ".local")
    assert load_settings().clickhouse_port == 4711
    monkeypatch.setenv(variable, "postgresql://h/d" if variable == "POSTGRES_URL" else "chosen")
    settings = load_settings()
    assert settings.clickhouse_port == 8443
    assert settings.aws_endpoint_url != "http://127.0.0.1:4712"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        for variable in variables_of(name):
            monkeypatch.setenv(variable, "")
    settings = load_settings()
    assert settings.clickhouse_host is None
    assert settings.redshift_port == 5439


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings().env = "prod"  # pyright: ignore[reportAttributeAccessIssue] - that is the test


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_a_postgresql_url_selects_the_same_driver(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("POSTGRES_URL", f"{scheme}://u:p@h/d")
    url = load_settings().postgres_url
    assert url is not None
    assert url.get_secret_value() == "postgresql+psycopg://u:p@h/d"


def test_require_names_all_that_is_missing_at_once() -> None:
    with pytest.raises(ConfigurationError, match="not set: REDSHIFT_HOST, POSTGRES_URL") as caught:
        load_settings().require("redshift_host", "postgres_url", "env")
    assert "cloud up" in str(caught.value)


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_RAW_BUKET", "x")
    monkeypatch.setenv("DATA_PLATFORM_RAW_BUCKET", "x")
    assert unknown_variables() == ["DATA_PLATFORM_RAW_BUKET"]


def test_every_setting_has_a_group_and_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["group"], name
        assert field.description is not None, name
        assert field.description.endswith("."), name


def test_the_reference_page_is_current() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == reference(), "run: data-platform settings --docs > docs/settings.md"
