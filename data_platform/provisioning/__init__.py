"""Makes everything the platform needs on AWS, Kafka, PostgreSQL and ClickHouse; idempotent.

`provision(settings)` is the same code for AWS and for the embedded cloud; one module per kind of thing it makes.
"""

from data_platform.provisioning.report import Change, ProvisionReport, Skipped
from data_platform.provisioning.run import PARTS, provision

__all__ = ["PARTS", "Change", "ProvisionReport", "Skipped", "provision"]
