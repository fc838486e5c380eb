"""The columns of the product metrics' tables, and which columns of the events each is counted from.

Written down, not read from the SQL: between events and tables lie bitmaps and sessions, in which a parser sees no
column. A test compares them with the tables that a run makes.
"""

from collections.abc import Mapping

import dagster as dg

DAY = ("service_name", "event_time")
USERS = (*DAY, "user_id")
EVENTS = (*DAY, "record_uid")
SESSIONS = (*EVENTS, "session_id", "user_id")
STEPS = (*SESSIONS, "event_name")
COUNT, SHARE, MAYBE_COUNT, MAYBE_SHARE = "UInt64", "Float64", "Nullable(UInt64)", "Nullable(Float64)"

Columns = Mapping[str, tuple[str, tuple[str, ...]]]  # type in ClickHouse, columns of the events
_HEAD: Columns = {"activity_date": ("Date", DAY)}
_TAIL: Columns = {"execution_date": ("Date", ())}

COLUMNS: Mapping[str, Columns] = {
    "mau": {
        **_HEAD,
        **dict.fromkeys(("mau_30", "mau_28", "mau_month_to_date", "dau"), (COUNT, USERS)),
        "stickiness": (MAYBE_SHARE, USERS),
        **_TAIL,
    },
    "dau": {
        **_HEAD,
        **dict.fromkeys(("dau", "new_users", "returning_users"), (COUNT, USERS)),
        "sessions": (COUNT, SESSIONS),
        "events": (COUNT, EVENTS),
        **_TAIL,
    },
    "retention": {
        "cohort_date": ("Date", USERS),
        "cohort_size": (COUNT, USERS),
        **dict.fromkeys(("retained_d1", "retained_d7", "retained_d30"), (MAYBE_COUNT, USERS)),
        **dict.fromkeys(("rate_d1", "rate_d7", "rate_d30"), (MAYBE_SHARE, USERS)),
        **dict.fromkeys((f"retained_d{n}_unbounded" for n in (1, 7, 30)), (MAYBE_COUNT, USERS)),
        **_TAIL,
    },
    "conversion": {
        **_HEAD,
        "sessions": (COUNT, SESSIONS),
        **dict.fromkeys(("sessions_viewed", "sessions_carted"), (COUNT, STEPS)),
        "view_rate": (SHARE, STEPS),
        "cart_rate": (MAYBE_SHARE, STEPS),
        "session_to_cart_rate": (SHARE, STEPS),
        **_TAIL,
    },
    "user_cohort": {**_HEAD, "cohort": ("String", USERS), "users": (COUNT, USERS), "share": (SHARE, USERS), **_TAIL},
    "session_metrics": {
        **_HEAD,
        **dict.fromkeys(("sessions", "users", "events"), (COUNT, SESSIONS)),
        "events_mean": (SHARE, SESSIONS),
        **dict.fromkeys(("events_median", "events_p90", "events_p99", "events_max"), (COUNT, SESSIONS)),
        **dict.fromkeys(("duration_mean_s", "duration_median_s", "duration_p90_s"), (SHARE, SESSIONS)),
        "single_event_sessions": (COUNT, SESSIONS),
        **_TAIL,
    },
    "event_distribution": {
        **_HEAD,
        "event_name": ("LowCardinality(String)", ("event_name",)),
        "events": (COUNT, (*EVENTS, "event_name")),
        "users": (COUNT, (*USERS, "event_name")),
        "share": (SHARE, (*EVENTS, "event_name")),
        **_TAIL,
    },
}


def schema_of(metric: str) -> dg.TableSchema:
    """The metric's columns as the UI shows them; none of a metric that is not written down here."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type_, constraints=dg.TableColumnConstraints(nullable=type_.startswith("Nullable(")))
            for name, (type_, _) in COLUMNS.get(metric, {}).items()
        ]
    )


def lineage_of(metric: str, events: dg.AssetKey) -> dg.TableColumnLineage:
    """Per column the columns of `events` it is counted from."""
    columns = COLUMNS.get(metric, {})
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(events, each) for each in deps] for name, (_, deps) in columns.items()}
    )
