"""What provisioning decides before it calls anybody: plans of buckets, routes, alarms, differences of queues."""

from typing import Any

import pytest

from data_platform.catalog import Catalog, load_catalog
from data_platform.errors import ConfigurationError, Fault, PlatformError
from data_platform.loading.metrics import Depth, Window, cloudwatch_data
from data_platform.loading.publish import NAMESPACE
from data_platform.provisioning import provision
from data_platform.provisioning.alarms import alarm_requests
from data_platform.provisioning.buckets import (
    HOUSEKEEPING,
    QUERY_RESULTS,
    TEMPORARY_FILES,
    BucketPlan,
    bucket_plans,
    lifecycle_rules,
)
from data_platform.provisioning.queues import base_attributes, differing, queue_policy
from data_platform.provisioning.routes import routes
from data_platform.provisioning.run import together
from data_platform.provisioning.topics import wanted_topics
from data_platform.settings import Settings

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def plain() -> Settings:
    return Settings(_env_file=None)  # pyright: ignore[reportCallIssue]


@pytest.fixture(scope="module")
def catalog(plain: Settings) -> Catalog:
    return load_catalog(plain.catalog)


def test_each_domain_has_a_route_of_its_own(plain: Settings, catalog: Catalog) -> None:
    by_queue = {route.queue: route for route in routes(plain, catalog)}
    assert set(by_queue) == {f"dev-{domain}-load-queue" for domain in catalog.domains} | {
        "dev-user-statistics-queue", "dev-unload-queue", "dev-event-logs-queue",
    }  # fmt: skip
    market = by_queue["dev-market-load-queue"]
    assert (market.rule, market.dlq) == ("dev-market-load-rule", "dev-market-load-dlq")
    assert market.pattern["detail"]["object"] == {
        "key": [{"wildcard": "market/*.parquet"}], "size": [{"numeric": [">", 1024]}],
    }  # fmt: skip


# alarm -> (threshold, period in s, periods, of which breaching): the table of the load specification
SPECIFIED = {
    "LoadLatencyHigh": (600, 300, 3, 2, "P1"),
    "LoadErrorRateHigh": (5, 300, 3, 3, "P0"),
    "LoadQueueDepthHigh": (100, 300, 3, 2, "P1"),
    "LoadDLQMessages": (0, 60, 1, 1, "P0"),
}


def test_the_alarms_are_the_specified_ones(plain: Settings, catalog: Catalog) -> None:
    found: dict[str, Any] = {}
    for request in alarm_requests(plain, sorted(catalog.domains)):
        sources = [metric["MetricStat"] for metric in request["Metrics"] if "MetricStat" in metric]
        assert len(sources) == len(catalog.domains)
        (period,) = {source["Period"] for source in sources}
        assert request["ComparisonOperator"] == "GreaterThanThreshold"
        found[request["AlarmName"].removeprefix("dev-")] = (
            request["Threshold"],
            period,
            request["EvaluationPeriods"],
            request["DatapointsToAlarm"],
            request["AlarmDescription"][:2],
        )
    assert found == SPECIFIED


# alarm -> namespace, metric, dimensions of the domain market. Depths are SQS's own: they ring when the loader is dead.
WATCHED = {
    "LoadLatencyHigh": ("DataPlatform/Load", "ProcessingLatency", {"Environment": "dev", "Domain": "market"}),
    "LoadErrorRateHigh": ("DataPlatform/Load", "ErrorRate", {"Environment": "dev", "Domain": "market"}),
    "LoadQueueDepthHigh": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": "dev-market-load-queue"}),
    "LoadDLQMessages": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": "dev-market-load-dlq"}),
}


def test_each_alarm_watches_the_metric_that_is_sent_for_every_domain(plain: Settings, catalog: Catalog) -> None:
    happened = dict.fromkeys(catalog.domains, (Window(1, 1, [0.5]), Depth(0, 0, 0), "running"))
    data: list[Any] = cloudwatch_data("dev", happened)
    sent = {
        (datum["MetricName"], tuple((each["Name"], each["Value"]) for each in datum["Dimensions"])) for datum in data
    }
    found: dict[str, Any] = {}
    for request in alarm_requests(plain, sorted(catalog.domains)):
        (expression,) = [metric for metric in request["Metrics"] if metric["ReturnData"]]
        assert expression["Expression"] == "MAX(METRICS())"
        assert request["TreatMissingData"] == "notBreaching"
        for source in (metric for metric in request["Metrics"] if not metric["ReturnData"]):
            assert source["MetricStat"]["Stat"] == "Maximum"
            watched = source["MetricStat"]["Metric"]
            dimensions = {each["Name"]: each["Value"] for each in watched["Dimensions"]}
            if watched["Namespace"] == NAMESPACE:
                assert (watched["MetricName"], tuple(dimensions.items())) in sent
            if source["Label"] == "market":
                name = request["AlarmName"].removeprefix("dev-")
                found[name] = (watched["Namespace"], watched["MetricName"], dimensions)
        assert {metric["Label"] for metric in request["Metrics"]} >= set(catalog.domains)
    assert found == WATCHED


def test_more_domains_than_an_alarm_can_watch_make_numbered_alarms(plain: Settings) -> None:
    requests = list(alarm_requests(plain, [f"domain_{number}" for number in range(20)]))
    assert len(requests) == 12
    assert {len(request["Metrics"]) for request in requests} <= set(range(2, 11))
    assert "dev-LoadDLQMessages-3" in {request["AlarmName"] for request in requests}


def test_alarms_go_to_the_topic_of_the_settings(plain: Settings) -> None:
    topic = "arn:aws:sns:us-east-1:000000000000:alarms"
    request = next(alarm_requests(plain.model_copy(update={"alarm_topic": topic}), ["market"]))
    assert request["AlarmActions"] == request["OKActions"] == [topic]


def test_one_bucket_may_have_all_roles(plain: Settings) -> None:
    one = plain.model_copy(update=dict.fromkeys(("raw_bucket", "curated_bucket", "unload_bucket"), "one"))
    assert bucket_plans(one) == (BucketPlan("one", temporary_files=True, query_results=True),)


def test_unload_results_expire_in_the_unload_bucket_only() -> None:
    assert lifecycle_rules([], BucketPlan("b")) == [HOUSEKEEPING]
    assert lifecycle_rules([], BucketPlan("b", temporary_files=True)) == [HOUSEKEEPING, TEMPORARY_FILES]
    assert lifecycle_rules([], BucketPlan("b", query_results=True)) == [HOUSEKEEPING, QUERY_RESULTS]


def test_a_rule_is_replaced_when_it_says_something_else_only() -> None:
    spelt_by_the_service = {**HOUSEKEEPING, "Added": "by the service"}
    assert lifecycle_rules([spelt_by_the_service], BucketPlan("b")) == [spelt_by_the_service]
    changed = {**HOUSEKEEPING, "Status": "Disabled"}
    assert lifecycle_rules([changed], BucketPlan("b")) == [HOUSEKEEPING]


def test_queue_attributes_are_compared_by_meaning() -> None:
    policy = queue_policy("arn:queue", "arn:rule")
    current = {
        "MessageRetentionPeriod": "1209600", "VisibilityTimeout": "60", "ReceiveMessageWaitTimeSeconds": "20",
        "SqsManagedSseEnabled": "true", "Policy": str(policy).replace("'", '"').replace(", ", ",  "),
    }  # fmt: skip
    assert differing(current, {**base_attributes(), "Policy": policy}) == {}
    assert differing({**current, "VisibilityTimeout": "30"}, base_attributes()) == {"VisibilityTimeout": "60"}
    kms = {**current, "SqsManagedSseEnabled": "false", "KmsMasterKeyId": "alias/ours"}
    assert differing(kms, base_attributes()) == {}


def test_a_notice_topic_of_ones_own_comes_with_its_dead_letters(plain: Settings, catalog: Catalog) -> None:
    named = plain.model_copy(update={"kafka_unload_topic": "mine"})
    assert set(wanted_topics(named, catalog)) - set(wanted_topics(plain, catalog)) == {"mine", "mine.dlq"}
    assert {topic.partitions for topic in wanted_topics(plain, catalog).values()} == {3}


def test_engines_without_settings_are_skipped_by_the_name_of_their_variable(plain: Settings) -> None:
    report = provision(plain)
    assert report.changes == ()
    assert {(skipped.part, skipped.reason) for skipped in report.skipped} == {
        ("aws", "AWS_DEFAULT_REGION not set"),
        ("athena", "AWS_DEFAULT_REGION not set"),
        ("kafka", "KAFKA_BOOTSTRAP_SERVERS not set"),
        ("postgres", "POSTGRES_URL not set"),
        ("clickhouse", "CLICKHOUSE_HOST not set"),
    }


def test_a_part_that_does_not_exist_is_refused(plain: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no such part: s4"):
        provision(plain, only=["aws", "s4"])


def test_every_failure_is_told_and_a_bug_is_not_hidden() -> None:
    def fail(message: str) -> None:
        raise PlatformError(message, hint="do this", fault=Fault.CONFIGURATION)

    with pytest.raises(PlatformError, match=r"(?s)one.*do this.*two.*do this") as caught:
        together(lambda: fail("one"), lambda: fail("two"), lambda: None)
    assert caught.value.fault is Fault.CONFIGURATION
    with pytest.raises(ZeroDivisionError):
        together(lambda: fail("one"), lambda: print(1 // 0))
