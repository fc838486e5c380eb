"""Notices to people: sent where they are configured, told without secrets, harmless when they fail, never a flood."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import pytest

from data_platform.clients import aws
from data_platform.ledger.unload_requests import UnloadRequest
from data_platform.ledger.unloads import UnloadStatus
from data_platform.local.cloud import Cloud
from data_platform.local.process import free_port
from data_platform.settings import Settings
from data_platform.unload.notices import PER_MINUTE, Notices, text_of


def ended(status: UnloadStatus = UnloadStatus.DONE) -> UnloadRequest:
    now = datetime.now(UTC)
    failed = status is UnloadStatus.FAILED
    return UnloadRequest(
        "r-1", "reports", bytes(32), "select 'personal data'", {}, status, 1, 12, 2**20, [{"key": "k"}],
        "42P01" if failed else None, "no such table" if failed else None, None, now, now, now, now,
    )  # fmt: skip


@pytest.fixture
def slack() -> Iterator[tuple[str, list[str]]]:
    """A webhook that keeps what it is told."""
    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/services/secret-path", told
    server.shutdown()
    server.server_close()


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_done_and_failed_are_told_and_a_flood_is_cut(slack: tuple[str, list[str]]) -> None:
    url, told = slack
    notices = Notices(settings(unload_slack_webhook=url))
    notices.start()
    notices.tell(ended(UnloadStatus.FAILED))
    notices.tell(ended(UnloadStatus.CANCELLED))
    for _ in range(PER_MINUTE + 5):
        notices.tell(ended())
    notices.stop()
    assert told[0] == "Unload r-1 of reports FAILED (42P01): no such table"
    assert told[1] == "Unload r-1 of reports is DONE: 12 rows, 1.0 MiB, 1 files"
    assert len(told) == PER_MINUTE
    assert "personal" not in str(told)


def test_nobody_is_told_unless_configured() -> None:
    notices = Notices(settings())
    notices.start()
    notices.tell(ended())
    notices.stop()
    assert not notices.wanted


def test_a_webhook_that_fails_is_harmless_and_its_address_stays_secret(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(settings(unload_slack_webhook=f"http://127.0.0.1:{free_port()}/services/secret-path"))
    notices.start()
    with caplog.at_level(logging.WARNING):
        notices.tell(ended())
        notices.stop()
    assert "no notice by Slack" in caplog.text
    assert "secret-path" not in caplog.text


@pytest.mark.integration
def test_mail_goes_out_by_ses_and_a_refused_sender_is_harmless(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    ses = aws.client(cloud.settings, "ses")
    sender = f"{uuid4().hex}@example.com"

    def mail_of(address: str) -> Notices:
        update = {"unload_mail_from": address, "unload_mail_to": "a@example.com, b@example.com"}
        return Notices(cloud.settings.model_copy(update=update))

    before = ses.get_send_quota()["SentLast24Hours"]
    refused = mail_of(sender)
    refused.start()
    with caplog.at_level(logging.WARNING):
        refused.tell(ended())
        refused.stop()
    assert "no notice by e-mail" in caplog.text
    assert ses.get_send_quota()["SentLast24Hours"] == before
    ses.verify_email_identity(EmailAddress=sender)
    sent = mail_of(sender)
    sent.start()
    sent.tell(ended())
    sent.tell(ended(UnloadStatus.FAILED))
    sent.stop()
    assert ses.get_send_quota()["SentLast24Hours"] == before + 4  # two receivers each


def test_a_notice_holds_no_statement_and_no_link() -> None:
    assert "select" not in text_of(ended())
    assert "http" not in text_of(ended())
