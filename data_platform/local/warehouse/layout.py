"""Statements that are rebuilt as a whole: settings, table layout, VACUUM, grants of roles that are not here."""

from sqlglot.tokenizer_core import TokenType

from data_platform.local.warehouse.rewriter import Rewriter, is_word

# Settings of Redshift alone; kept in PostgreSQL as custom settings, so that SET, SHOW, RESET and SET LOCAL work.
PARAMETERS = frozenset(
    {"query_group", "enable_result_cache_for_session", "wlm_query_slot_count", "enable_case_sensitive_identifier",
     "enable_case_sensitive_super_attribute", "json_serialization_enable", "json_serialization_parse_nested_strings",
     "analyze_threshold_percent", "describe_field_name_in_uppercase", "downcase_delimited_identifier",
     "max_cursor_result_set_size", "navigate_super_null_on_error", "parse_super_null_on_error", "use_fips_ssl",
     "auto_analyze", "mv_enable_aqmv_for_session", "spectrum_query_maxerror", "spectrum_enable_pseudo_columns",
     "enable_vacuum_boost", "activate_aqua", "error_on_nondeterministic_update"}
)  # fmt: skip


def statement(rewriter: Rewriter, start: int, end: int) -> str:
    """The translation of one statement."""
    first = rewriter.tokens[start].text.upper()
    second = rewriter.tokens[start + 1].text.upper() if start + 1 < end else ""
    if first in {"SET", "SHOW", "RESET"}:
        return _parameter(rewriter, start, end)
    if first == "VACUUM":
        return _vacuum(rewriter, start, end)
    if first in {"GRANT", "REVOKE"} and second == "ASSUMEROLE":
        return f"SET redshift.assumerole TO '{first.lower()}'"  # there is no IAM here whose use could be granted
    if first == "CREATE" and _is_create_table(rewriter, start, end):
        return _create_table(rewriter, start, end)
    if first == "ALTER" and second == "TABLE" and _alters_layout(rewriter, start, end):
        return f"ALTER TABLE {_name_after(rewriter, start + 2, end)} RESET (fillfactor)"  # the same tag, no effect
    return rewriter.render(start, end)


def _parameter(rewriter: Rewriter, start: int, end: int) -> str:
    for index in range(start + 1, min(start + 3, end)):  # SET [LOCAL | SESSION] name
        if rewriter.tokens[index].text.lower() in PARAMETERS:
            head = rewriter.text[rewriter.tokens[start].start : rewriter.tokens[index].start]
            return f"{head}redshift.{rewriter.text[rewriter.tokens[index].start : rewriter.tokens[end - 1].end + 1]}"
    return rewriter.render(start, end)


def _vacuum(rewriter: Rewriter, start: int, end: int) -> str:
    """VACUUM [FULL | SORT ONLY | DELETE ONLY | REINDEX | RECLUSTER] [table] [TO n PERCENT] [BOOST]."""
    index = start + 1
    while index < end and is_word(rewriter.tokens[index], "FULL", "SORT", "DELETE", "ONLY", "REINDEX", "RECLUSTER"):
        index += 1
    return f"VACUUM {_name_after(rewriter, index, end)}".rstrip()


def _name_after(rewriter: Rewriter, index: int, end: int) -> str:
    """The (qualified) name at `index`, as written."""
    last = index
    while last + 2 < end and rewriter.tokens[last + 1].token_type is TokenType.DOT:
        last += 2
    return rewriter.text[rewriter.tokens[index].start : rewriter.tokens[last].end + 1] if index < end else ""


def _is_create_table(rewriter: Rewriter, start: int, end: int) -> bool:
    for token in rewriter.tokens[start + 1 : min(start + 5, end)]:
        if is_word(token, "TABLE", "VIEW"):
            return True
        if not is_word(token, "OR", "REPLACE", "TEMP", "TEMPORARY", "LOCAL", "MATERIALIZED"):
            return False
    return False


def _alters_layout(rewriter: Rewriter, start: int, end: int) -> bool:
    return any(
        is_word(token, "DISTKEY", "DISTSTYLE", "SORTKEY", "ENCODE") for token in rewriter.tokens[start + 3 : end]
    )


def _create_table(rewriter: Rewriter, start: int, end: int) -> str:
    """The layout attributes go; what follows AS is a query like any other."""
    query = next((index for index in range(start, end) if is_word(rewriter.tokens[index], "AS")), end)
    if query < end:
        head = _columns(rewriter, start, query)
        tail_end = _without_schema_binding(rewriter, query, end)
        return f"{head} {rewriter.render(query, tail_end)}"
    return _columns(rewriter, start, end)


def _without_schema_binding(rewriter: Rewriter, start: int, end: int) -> int:
    """PostgreSQL binds every view: the clause goes."""
    words = [token.text.upper() for token in rewriter.tokens[max(start, end - 4) : end]]
    return end - 4 if words == ["WITH", "NO", "SCHEMA", "BINDING"] else end


def _columns(rewriter: Rewriter, start: int, end: int) -> str:
    """A CREATE TABLE up to its AS: attribute by attribute, at any depth."""
    pieces: list[str] = []
    index, at = start, rewriter.tokens[start].start
    while index < end:
        token = rewriter.tokens[index]
        pieces.append(rewriter.text[at : token.start])
        skipped = _layout_attribute(rewriter, index, end)
        if skipped > index:
            index = skipped
        elif token.token_type is TokenType.L_PAREN:
            pieces.append(rewriter.text[token.start : token.end + 1])
            index += 1
        else:
            piece, index = rewriter.piece(index, start, end)
            pieces.append(piece)
        at = rewriter.tokens[index - 1].end + 1
    return "".join(pieces)


def _layout_attribute(rewriter: Rewriter, index: int, end: int) -> int:
    """The index behind the layout attribute at `index`; `index` itself when there is none."""
    token = rewriter.tokens[index]
    following = rewriter.tokens[index + 1] if index + 1 < end else None
    after = index
    if is_word(token, "DISTSTYLE", "ENCODE", "BACKUP"):
        after = index + 2
    elif is_word(token, "COMPOUND", "INTERLEAVED") and following is not None and is_word(following, "SORTKEY"):
        after = index + 1
    elif is_word(token, "AUTO") and following is not None and is_word(following, "REFRESH"):
        after = index + 3
    elif is_word(token, "DISTKEY", "SORTKEY"):
        after = index + 1
        if after in rewriter.closing:
            after = rewriter.closing[after] + 1
        elif following is not None and is_word(following, "AUTO"):
            after += 1
    return after
