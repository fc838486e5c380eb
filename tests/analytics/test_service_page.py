"""The page of a service: everything in one file, hostile names harmless, readable where people read it."""

import re
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from data_platform.analytics.charts import PICTURES
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.page import render_page
from data_platform.catalog.models import Service
from tests.analytics.reference import Definitions, Event, Reference

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COLUMNS = {
    "dau": ("activity_date", "dau", "new_users", "returning_users", "sessions", "events"),
    "mau": ("activity_date", "mau_30", "mau_28", "mau_month_to_date", "dau", "stickiness"),
    "retention": (
        *("cohort_date", "cohort_size", "retained_d1", "retained_d7", "retained_d30", "rate_d1", "rate_d7", "rate_d30"),
        *("retained_d1_unbounded", "retained_d7_unbounded", "retained_d30_unbounded"),
    ),
    "conversion": ("activity_date", "sessions", "sessions_viewed", "sessions_carted", "view_rate", "cart_rate"),
    "user_cohort": ("activity_date", "cohort", "users", "share"),
    "session_metrics": (
        *("activity_date", "sessions", "users", "events", "events_mean", "events_median", "events_p90"),
        *("events_p99", "events_max"),
    ),
    "event_distribution": ("activity_date", "event_name", "events", "users", "share"),
}
STEPS = ("page_view", "product_view", "add_to_cart", "search", "<script>alert(1)</script>")


def tables() -> tuple[dict[str, list[dict[str, Any]]], list[tuple[int, int]]]:
    """The tables of a shop of 120 users over 50 days, by the reference."""
    random = Random(7)
    events: list[Event] = []
    for user in range(120):
        first = random.randrange(40)
        for day in range(first, 50):
            if day == first or random.random() < 0.25:
                start = int(datetime(2024, 1, 1, 12, tzinfo=ZoneInfo("UTC")).timestamp()) + day * 86_400 + user
                for n in range(random.randint(1, 14)):
                    name = random.choice(STEPS)
                    events.append(
                        Event((start + 40 * n) * 10**9, name, f"u{user}", f"{user}-{day}", None, "o", len(events))
                    )
    reference = Reference(events, Definitions())
    rows = {
        metric: [dict(zip(columns, row, strict=False)) for row in getattr(reference, metric)()]
        for metric, columns in COLUMNS.items()
    }
    sizes: dict[int, int] = {}
    for sessions in reference.sessions.values():
        for session in sessions:
            sizes[len(session.events)] = sizes.get(len(session.events), 0) + 1
    return rows, sorted(sizes.items())


def page() -> str:
    rows, sizes = tables()
    return render_page(Service(name="theshop-brand"), rows, sizes, datetime(2024, 2, 20, 2, tzinfo=UTC))


@pytest.mark.unit
def test_the_page_needs_nothing_but_itself() -> None:
    html = page()
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "url(" not in html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<svg") == 4


@pytest.mark.unit
def test_a_service_without_data_has_a_page_that_says_so() -> None:
    html = render_page(Service(name="empty"), {}, [], datetime(2024, 1, 1, tzinfo=UTC))
    assert "no days with events yet" in html
    assert html.count("nothing yet") >= 6


@pytest.mark.unit
@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_picture_also_of_nothing_and_of_one_day(metric: str) -> None:
    rows, _ = tables()
    first = min(row[METRICS[metric].day] for row in rows[metric])
    for some in ([], [row for row in rows[metric] if row[METRICS[metric].day] == first], rows[metric]):
        picture, names = PICTURES[metric](some)
        assert picture.startswith("<svg")
        assert picture.endswith("</svg>")
        assert "NaN" not in picture
        assert (len(some) == 0) or "<span>" in names


@pytest.mark.unit
def test_the_triangle_leaves_out_what_has_not_come() -> None:
    rows, _ = tables()
    assert rows["retention"][-1]["rate_d30"] is None
    html = page()
    newest = html[html.index(f"<td class=day>{rows['retention'][-1]['cohort_date']}") :]
    assert newest[: newest.index("</tr>")].count("<td></td>") >= 2
    assert date.fromisoformat("2024-01-01") == rows["dau"][0]["activity_date"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on PATH")
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_a_browser_shows_it_without_errors_and_without_scrolling_sideways(
    tmp_path: Path, width: int, height: int
) -> None:
    file = tmp_path / "index.html"
    # A headless window is never narrower than 500 px: a frame of the phone's width stands for the phone.
    file.write_text(page(), encoding="utf-8")
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="index.html" style="width:{width}px;height:{height}px;border:0"></iframe>'
        "<script>onload=()=>{const d=document.getElementById('f').contentDocument;document.title="
        "[d.documentElement.scrollWidth,d.querySelectorAll('svg').length,d.querySelectorAll('section').length].join()}"
        "</script>",
        encoding="utf-8",
    )
    assert CHROMIUM is not None
    result = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    title = re.search(r"<title>([\d,]+)</title>", result.stdout)
    assert title is not None, result.stdout[:500]
    scroll_width, pictures, sections = map(int, title[1].split(","))
    assert scroll_width <= width
    assert (pictures, sections) == (4, 7)
    assert "Uncaught" not in result.stderr
