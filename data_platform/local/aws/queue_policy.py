"""Whether a queue's policy lets an EventBridge rule send to it. Pure; AWS silently delivers nothing without it."""

import json
from fnmatch import fnmatchcase
from typing import Any, cast

SERVICE = "events.amazonaws.com"
_SOURCE_KEYS = {"aws:sourcearn", "aws:sourceaccount"}


def permits(policy: str | None, *, queue_arn: str, rule_arn: str, account: str) -> bool:
    """Whether some statement allows, and none denies, `sqs:SendMessage` on the queue by the rule."""
    if not policy:
        return False
    statements = _listed(json.loads(policy).get("Statement"))
    facts = {"aws:sourcearn": rule_arn, "aws:sourceaccount": account}
    effects = {s.get("Effect") for s in statements if _applies(s, queue_arn, facts)}
    return effects == {"Allow"}


def _applies(statement: dict[str, Any], queue_arn: str, facts: dict[str, str]) -> bool:
    principal = statement.get("Principal")
    if principal != "*":
        named = _listed(cast("dict[str, Any]", principal or {}).get("Service"))
        anyone = _listed(cast("dict[str, Any]", principal or {}).get("AWS"))
        if SERVICE not in named and "*" not in anyone:
            return False
    actions = [str(action).lower() for action in _listed(statement.get("Action"))]
    if not any(fnmatchcase("sqs:sendmessage", pattern) for pattern in actions):
        return False
    if not any(fnmatchcase(queue_arn, str(pattern)) for pattern in _listed(statement.get("Resource"))):
        return False
    return all(
        _holds(operator, key.lower(), _listed(wanted), facts)
        for operator, tests in (statement.get("Condition") or {}).items()
        for key, wanted in tests.items()
    )


def _holds(operator: str, key: str, wanted: list[Any], facts: dict[str, str]) -> bool:
    if key not in _SOURCE_KEYS:
        # e.g. aws:SecureTransport in the usual Deny: EventBridge always comes over TLS
        return key == "aws:securetransport" and "true" in [str(value).lower() for value in wanted]
    if operator.lower() in {"arnequals", "arnlike", "stringlike"}:
        return any(fnmatchcase(facts[key], str(pattern)) for pattern in wanted)
    if operator.lower() == "stringequals":
        return facts[key] in wanted
    return False


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]
