"""Who is told: the settings' routes by owner. Nothing is configured: nobody is told, and nothing fails."""

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from data_platform.errors import ConfigurationError
from data_platform.settings import Settings, variable_of

EVERYBODY_ELSE = "*"


class Route(BaseModel):
    """The channels of one owner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slack: SecretStr | None = None
    email: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...] = ()


EXAMPLE = (
    "an owner has the channels slack and email, for example "
    '{"team:market-data": {"slack": "https://..."}, "*": {"email": ["data@example.com"]}}'
)
_ROUTES = TypeAdapter(dict[str, Route])


def read_routes(settings: Settings) -> dict[str, Route]:
    """Routes by owner. Raises ConfigurationError that tells what does not fit, never a webhook's address."""
    secret = settings.alert_routes
    if secret is None:
        return {}
    try:
        routes = _ROUTES.validate_python(json.loads(secret.get_secret_value()))
    except json.JSONDecodeError as error:
        raise _wrong(f" is not valid JSON (character {error.pos})") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
        raise _wrong(f" is not valid: {'; '.join(lines)}") from None
    for owner, route in routes.items():
        if route.slack is not None and not route.slack.get_secret_value().startswith(("https://", "http://127.0.0.1")):
            raise _wrong(f": slack of {owner} is not an https:// address")
    return routes


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"{variable_of('alert_routes')}{what}", hint=EXAMPLE)


def route_of(routes: dict[str, Route], owner: str) -> Route | None:
    """The owner's own route, else the one for everybody else; an owner that is an address gets mail without a route."""
    if owner in routes:
        return routes[owner]
    if not owner.startswith("team:") and "@" in owner and routes:
        return Route(email=(owner,))
    return routes.get(EVERYBODY_ELSE)
