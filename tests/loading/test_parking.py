"""A parked domain: shown once with its reason, tried again when a person resumes it, never shown over a pause."""

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from data_platform.clients import clickhouse
from data_platform.loading.domains import DomainState, read_domains, write_domain
from data_platform.loading.parking import Parking
from data_platform.local.cloud import Cloud

pytestmark = pytest.mark.integration
NAME = "parking_test"


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Client]:
    """A client; nothing is left of the domain."""
    with clickhouse.connect(cloud.settings) as made:
        yield made
        made.command(f"DELETE FROM platform.domains WHERE domain = '{NAME}'")


def state(client: Client) -> tuple[str, str]:
    found = read_domains(client)[NAME]
    return found.state.value, found.reason


def test_a_parked_domain_is_shown_until_something_of_it_works(client: Client) -> None:
    parking = Parking([NAME], "one")
    parking.trip(NAME, "no such table")
    assert not parking.allows(NAME)
    parking.publish(client, read_domains(client))
    assert state(client) == ("parked", "no such table")
    since = read_domains(client)[NAME].changed_at
    parking.trip(NAME, "no such table")
    parking.publish(client, read_domains(client))
    assert read_domains(client)[NAME].changed_at == since
    successor = Parking([NAME], "two")
    successor.publish(client, read_domains(client))
    assert state(client)[0] == "parked", "the next agent knows no better yet"
    successor.works(NAME)
    successor.publish(client, read_domains(client))
    assert state(client) == ("running", "")


def test_a_person_who_resumes_a_parked_domain_has_it_tried_at_once(client: Client) -> None:
    parking = Parking([NAME], "one")
    parking.trip(NAME, "denied")
    parking.publish(client, read_domains(client))
    write_domain(client, NAME, DomainState.RUNNING, reason="", worker="a person")
    assert not parking.allows(NAME)
    parking.publish(client, read_domains(client))
    assert parking.allows(NAME)
    assert parking.reason(NAME) == ""
    assert state(client) == ("running", "")


def test_parking_never_hides_that_a_person_paused(client: Client) -> None:
    parking = Parking([NAME], "one")
    parking.trip(NAME, "denied")
    before = read_domains(client)
    write_domain(client, NAME, DomainState.PAUSED, reason="maintenance", worker="a person")
    parking.publish(client, before)  # what it read is older than the pause
    assert state(client) == ("paused", "maintenance")


def test_a_queue_that_can_be_read_again_ends_its_parking(client: Client) -> None:
    parking = Parking([NAME], "one")
    parking.trip(NAME, "denied")
    parking.received(NAME)
    assert parking.reason(NAME) == "denied", "a receive says nothing about a table"
    parking.trip(NAME, "denied", of_queue=True)
    parking.received(NAME)
    assert parking.reason(NAME) == ""
