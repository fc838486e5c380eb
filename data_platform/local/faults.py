"""Fault switches of the embedded engines: tests arm them, engines ask before they act, each counts how often it struck.

A rule names a kind of fault (`s3.truncate`, `unload.die_after_files`, ...), what it applies to (shell patterns over
the facts an engine passes to `strike`), how many times it strikes and after how many passes. Kinds are the engines'
own; every engine module lists its kinds in `FAULT_KINDS`, and arming an unknown one is refused.
"""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from typing import Any


@dataclass
class FaultRule:
    """One armed fault. `times` None strikes for ever; `skip` lets that many matching calls pass first."""

    id: int
    kind: str
    match: dict[str, str] = field(default_factory=dict[str, str])
    times: int | None = 1
    skip: int = 0
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    struck: int = 0
    passed: int = 0


class FaultBoard:
    """The rules of one engine; thread-safe, since engines serve from many threads."""

    def __init__(self, kinds: Iterable[str] = ()) -> None:
        self.kinds = frozenset(kinds)
        self._checks: dict[str, Callable[[Mapping[str, Any]], object]] = {}
        self._rules: dict[int, FaultRule] = {}
        self._ids = count(1)
        self._lock = threading.Lock()

    def check_arguments(self, kind: str, check: Callable[[Mapping[str, Any]], object]) -> None:
        """Refuse to arm `kind` with arguments for which `check` raises ValueError."""
        self._checks[kind] = check

    def arm(
        self,
        kind: str,
        *,
        match: Mapping[str, str] | None = None,
        times: int | None = 1,
        skip: int = 0,
        args: Mapping[str, Any] | None = None,
    ) -> int:
        """Add a rule and return its id. Raises ValueError for a kind or arguments this engine does not know."""
        if kind not in self.kinds:
            raise ValueError(f"unknown fault {kind!r}; known: {', '.join(sorted(self.kinds)) or 'none'}")
        if kind in self._checks:
            self._checks[kind](args or {})
        with self._lock:
            rule = FaultRule(next(self._ids), kind, dict(match or {}), times, skip, dict(args or {}))
            self._rules[rule.id] = rule
            return rule.id

    def strike(self, kind: str, **facts: object) -> FaultRule | None:
        """The rule that strikes now, already counted, or None. `facts` are matched as text by shell patterns."""
        if not self._rules:  # the hot path of an engine without armed faults
            return None
        with self._lock:
            for rule in self._rules.values():
                if rule.kind != kind or (rule.times is not None and rule.struck >= rule.times):
                    continue
                if not all(fnmatchcase(str(facts.get(k, "")), pattern) for k, pattern in rule.match.items()):
                    continue
                if rule.passed < rule.skip:
                    rule.passed += 1
                    continue
                rule.struck += 1
                return rule
        return None

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their counts, oldest first."""
        with self._lock:
            return [asdict(rule) for rule in self._rules.values()]

    def disarm(self, fault_id: int) -> None:
        """Let one fault strike no more; what it has struck stays counted."""
        with self._lock:
            rule = self._rules.get(fault_id)
            if rule is not None:
                rule.times = rule.struck

    def clear(self) -> None:
        """Disarm and forget everything."""
        with self._lock:
            self._rules.clear()


class FaultClient:
    """Arms faults in an engine that runs in another process, over its control address (loopback HTTP)."""

    def __init__(self, control_url: str) -> None:
        self._url = f"{control_url.rstrip('/')}/faults"

    def arm(
        self,
        kind: str,
        *,
        match: Mapping[str, str] | None = None,
        times: int | None = 1,
        skip: int = 0,
        **args: Any,
    ) -> int:
        """Arm one fault; returns its id. Raises ValueError with the engine's words when it refuses."""
        body = {"kind": kind, "match": dict(match or {}), "times": times, "skip": skip, "args": args}
        return int(self._call("POST", body)["id"])

    def struck(self, fault_id: int) -> int:
        """How often the fault has struck."""
        return next((int(rule["struck"]) for rule in self.rules() if rule["id"] == fault_id), 0)

    def rules(self) -> list[dict[str, Any]]:
        """All rules of the engine with their counts."""
        return self._call("GET")["rules"]

    def disarm(self, fault_id: int) -> None:
        """Let one fault strike no more; what it has struck stays counted."""
        self._call("DELETE", path=f"/{fault_id}")

    def clear(self) -> None:
        """Disarm and forget everything."""
        self._call("DELETE")

    def _call(self, method: str, body: object = None, *, path: str = "") -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - loopback
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None
