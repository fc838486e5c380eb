"""What a run may cost, asked before its queries. Pure."""

from dataclasses import dataclass

from data_platform.clients.athena import MINIMUM_BYTES, TB
from data_platform.errors import ConfigurationError


@dataclass(frozen=True)
class Budget:
    """Dollars a run may cost at a price per TB."""

    usd: float
    usd_per_tb: float

    def estimate(self, bytes_to_scan: int, queries: int) -> float:
        """What scanning this much in this many queries costs at most; each query is charged for 10 MB at least."""
        return (bytes_to_scan + queries * MINIMUM_BYTES) / TB * self.usd_per_tb

    def ask(self, bytes_to_scan: int, *, queries: int) -> None:
        """Raise ConfigurationError when the estimate is over the budget; no query has run then."""
        cost = self.estimate(bytes_to_scan, queries)
        if cost > self.usd:
            raise ConfigurationError(
                f"the run would scan up to {bytes_to_scan / 1000**3:,.1f} GB for ${cost:,.2f}, over the budget of "
                f"${self.usd:,.2f}",
                hint="raise DATA_PLATFORM_ATHENA_BUDGET_USD for this run, or set min_data_date",
            )
