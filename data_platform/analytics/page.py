"""The page of a service: one HTML file with everything in it, from its tables. For phones too; no script."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from data_platform.analytics.charts import Rows, metric_rows, picture
from data_platform.analytics.export import PREFIX
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.svg import bars
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from mypy_boto3_s3 import S3Client

COHORT_ROWS = 31
# Upper ends of the bars: sessions with 1, 2, 3-5, ... events.
BUCKETS = ((1, "1"), (2, "2"), (5, "3-5"), (10, "6-10"), (20, "11-20"), (50, "21-50"), (2**62, "51+"))
STYLE = """
:root{color-scheme:light dark;--bg:#f8fafc;--card:#fff;--ink:#0f172a;--soft:#64748b;--line:#e2e8f0;--hue:37,99,235}
@media(prefers-color-scheme:dark){:root{--bg:#0b1120;--card:#111a2e;--ink:#e2e8f0;--soft:#94a3b8;--line:#243049}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:20px 16px 48px;display:grid;gap:16px;grid-template-columns:repeat(12,1fr)}
header,section{grid-column:span 12;min-width:0}section{background:var(--card);border:1px solid var(--line);
border-radius:12px;padding:16px}@media(min-width:900px){section.half{grid-column:span 6}}
h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:0 0 8px}p.note{color:var(--soft);margin:0;font-size:.85rem}
svg{width:100%;height:auto;max-height:340px;display:block}.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));
margin-top:16px}.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px}
.tile b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:.8rem}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;margin:8px 0 0;font-size:.8rem;color:var(--soft)}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:500}
.step{margin:10px 0}.step div{background:rgb(var(--hue));height:26px;border-radius:6px;min-width:2px}
.step p{margin:0 0 3px;font-size:.9rem;display:flex;justify-content:space-between;gap:12px}
th,td:first-child{white-space:normal}td:first-child{overflow-wrap:anywhere}td.day{white-space:nowrap}
@media(max-width:600px){main{padding:16px 10px 32px;gap:12px}section{padding:12px}th,td{padding:4px 5px}
table{font-size:.8rem}section svg text{font-size:18px}}
"""


def render_page(
    service: Service, tables: Mapping[str, Rows], sizes: Sequence[tuple[int, int]], made_at: datetime
) -> str:
    """The page. `tables`: rows by metric, missing or empty where there are none; `sizes`: (events, sessions) pairs."""
    mau, dau = tables.get("mau", []), tables.get("dau", [])
    days = f"{dau[0]['activity_date']} to {dau[-1]['activity_date']}" if dau else "no days with events yet"
    cohorts, events = tables.get("user_cohort", []), tables.get("event_distribution", [])
    # The long table comes last: on a phone it is a screen or two.
    sections = [
        _header(service, days, made_at, dau, mau),
        _section("Active users", _picture("mau", mau), "Distinct users of the day, of 30 days, of the month so far."),
        _section("New and returning", _picture("dau", dau), "Daily active users and those seen for the first time."),
        _section("Funnel", _funnel(tables.get("conversion", [])), "Sessions of all days shown."),
        _section("Events per session", _histogram(sizes), "Sessions of all days shown."),
        _section("Cohorts", _picture("user_cohort", cohorts), "Users of the day by age."),
        _section("Events", _events(events), "By name, over all days shown."),
        _section(
            "Retention",
            _retention(tables.get("retention", [])),
            "Of a day's new users, how many per cent were back on day +N.",
            half=False,
        ),
    ]
    title = escape(service.name)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def publish_page(client: "Client", s3: "S3Client", bucket: str, service: Service) -> str:
    """Render the page from the tables as they are and put it on S3; returns its URL."""
    tables = {metric: metric_rows(client, service, metric) for metric in METRICS}
    html = render_page(service, tables, session_sizes(client, service, tables.get("conversion", [])), datetime.now(UTC))
    key = f"{PREFIX}/{service.name}/index.html"
    s3.put_object(Bucket=bucket, Key=key, Body=html.encode(), ContentType="text/html; charset=utf-8")
    return f"s3://{bucket}/{key}"


def session_sizes(client: "Client", service: Service, conversion: Rows) -> list[tuple[int, int]]:
    """(events in a session, sessions) of the days shown."""
    if not conversion:
        return []
    days: list[date] = [row["activity_date"] for row in conversion]
    rows = client.query(
        "SELECT events, count() FROM analytics_blocks.sessions WHERE service = {service:String} "
        "AND day BETWEEN {first:Date} AND {last:Date} GROUP BY events ORDER BY events",
        parameters={"service": service.name, "first": min(days), "last": max(days)},
    ).result_rows
    return [(int(size), int(count)) for size, count in rows]


def _header(service: Service, days: str, made_at: datetime, dau: Rows, mau: Rows) -> str:
    tiles = ""
    if dau and mau:
        today, month = dau[-1], mau[-1]
        shown = (
            ("DAU", f"{today['dau']:,}"),
            ("new users", f"{today['new_users']:,}"),
            ("MAU, 30 days", f"{month['mau_30']:,}"),
            ("stickiness", _percent(month["stickiness"])),
            ("sessions", f"{today['sessions']:,}"),
            ("events", f"{today['events']:,}"),
        )
        items = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in shown)
        tiles = f'<div class="tiles">{items}</div>'
    return (
        f'<header><h1>{escape(service.name)}</h1><p class="note">{days}, days of {escape(service.time_zone)}; '
        f"computed {made_at:%Y-%m-%d %H:%M} UTC</p>{tiles}</header>"
    )


def _section(title: str, body: str, note: str, *, half: bool = True) -> str:
    return f'<section{" class=half" if half else ""}><h2>{title}</h2>{body}<p class="note">{note}</p></section>'


def _picture(metric: str, rows: Rows) -> str:
    if not rows:
        return "<p>nothing yet</p>"
    return "".join(picture(metric, rows))


def _retention(rows: Rows) -> str:
    """The triangle: a cohort a row, white where its day +N has not come."""
    head = "<tr><th>first day</th><th>users</th><th>D+1</th><th>D+7</th><th>D+30</th><th>D+30 or later</th></tr>"
    lines: list[str] = []
    for row in reversed(rows[-COHORT_ROWS:]):
        later = row["retained_d30_unbounded"]
        rates = [row["rate_d1"], row["rate_d7"], row["rate_d30"], None if later is None else later / row["cohort_size"]]
        cells = "".join(_shaded(rate) for rate in rates)
        lines.append(f"<tr><td class=day>{row['cohort_date']}</td><td>{row['cohort_size']:,}</td>{cells}</tr>")
    return f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>' if lines else "<p>nothing yet</p>"


def _shaded(rate: float | None) -> str:
    if rate is None:
        return "<td></td>"
    return f'<td style="background:rgba(var(--hue),{0.04 + 0.6 * rate:.2f})">{100 * rate:.1f}</td>'


def _funnel(rows: Rows) -> str:
    sums = [sum(row[column] for row in rows) for column in ("sessions", "sessions_viewed", "sessions_carted")]
    if not sums[0]:
        return "<p>nothing yet</p>"
    steps = zip(("sessions", "with a product view", "with an add-to-cart after it"), sums, strict=True)
    return "".join(
        f'<div class="step"><p><span>{name}</span><span>{count:,} ({_percent(count / sums[0])})</span></p>'
        f'<div style="width:{100 * count / sums[0]:.1f}%"></div></div>'
        for name, count in steps
    )


def _histogram(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return "<p>nothing yet</p>"
    counts = [0] * len(BUCKETS)
    for size, count in sizes:
        counts[next(index for index, (end, _) in enumerate(BUCKETS) if size <= end)] += count
    return bars([label for _, label in BUCKETS], counts)


def _events(rows: Rows) -> str:
    totals: dict[str, list[Any]] = {}
    for row in rows:
        total = totals.setdefault(row["event_name"], [0, 0])
        total[0] += row["events"]
        total[1] = max(total[1], row["users"])
    everything = sum(total[0] for total in totals.values())
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{events:,}</td><td>{_percent(events / everything)}</td><td>{users:,}</td></tr>"
        for name, (events, users) in sorted(totals.items(), key=lambda item: (-item[1][0], item[0]))
    )
    head = "<tr><th>event</th><th>events</th><th>share</th><th>most users in a day</th></tr>"
    return f'<div class="scroll"><table>{head}{lines}</table></div>' if lines else "<p>nothing yet</p>"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"
