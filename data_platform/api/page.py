"""The API's description as one plain page, made from its OpenAPI document: no script, nothing from other hosts."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
h2{border-top:1px solid #d5dbe3;padding-top:1rem}code,pre{font:14px/1.4 ui-monospace,monospace;background:#f3f5f8}
pre{padding:.7rem;overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #e3e7ed}
.post{color:#0a6b3d}.get{color:#0b4f9e}"""
_HEADERS = {
    "parameters": ("parameter", "in", "type", "what"),
    "fields": ("field", "type", "default", "what"),
    "answers": ("answer", "what", "content"),
}
Json = Mapping[str, Any]


def page(document: Json) -> str:
    """HTML of an OpenAPI document of this API."""
    info = document["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>", f"<p>{escape(info['description'])}</p>"]
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.extend(_operation(document, path, method, operation))
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _operation(document: Json, path: str, method: str, operation: Json) -> Iterator[str]:
    yield f'<h2><span class="{method}">{method.upper()}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
    parameters = [
        (each["name"], each["in"], _type(document, each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", [])
    ]
    yield from _table("parameters", parameters)
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if content:
        schema = _resolved(document, content["schema"])
        yield from _table("fields", list(_fields(document, schema)))
        yield from _call(path, method, schema)
    answers = [
        (code, each["description"], ", ".join(each.get("content", {}))) for code, each in operation["responses"].items()
    ]
    yield from _table("answers", answers)


def _fields(document: Json, schema: Json) -> Iterator[tuple[str, ...]]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else "" if field.get("default") is None else str(field["default"])
        yield name, _type(document, field), default, field.get("description", "")


def _call(path: str, method: str, schema: Json) -> Iterator[str]:
    example = schema.get("example")
    if example is not None:
        body = ", ".join(f'"{name}": "{value}"' for name, value in example.items())
        command = (
            f'curl -X {method.upper()} -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" '
            f"$API{path} -d '{{{body}}}'"
        )
        yield f"<pre>{escape(command)}</pre>"


def _type(document: Json, schema: Json) -> str:
    """What a value may be, in words."""
    schema = _resolved(document, schema)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(document, each) for each in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(document, schema.get('items', {}))}"
    low, high = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    limits = "" if low is None and high is None else f" {'' if low is None else low}..{'' if high is None else high}"
    return f"{schema.get('type', 'any')}{limits}"


def _resolved(document: Json, schema: Json) -> Json:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return document["components"]["schemas"][reference.rpartition("/")[2]]


def _table(kind: str, rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        head = "".join(f"<th>{escape(each)}</th>" for each in _HEADERS[kind])
        lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        yield f"<table><tr>{head}</tr>{''.join(lines)}</table>"
