"""What `data-platform doctor` looks at, one module per engine. Checks only read, but for probes they remove again."""

from data_platform.provisioning.checks.finding import Finding, Status
from data_platform.provisioning.checks.run import CHECKS, DEADLINE_S, examine

__all__ = ["CHECKS", "DEADLINE_S", "Finding", "Status", "examine"]
