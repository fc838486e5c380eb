"""The settings as Dagster's resource: read when a run needs them, never when the code location loads."""

import dagster as dg

from data_platform.settings import Settings, load_settings


class SettingsResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Hands the settings of the process's environment to an asset, a sensor or a schedule."""

    def load(self) -> Settings:
        """The settings in force. Raises ConfigurationError naming every variable that does not fit."""
        return load_settings()
