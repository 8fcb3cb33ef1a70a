"""Who speaks in the conversations of a dataset, how often, how long, and who has the last word."""

from __future__ import annotations

from mlintern.tools.data.column_statistics import lengths, quantile
from mlintern.tools.data.inspection_results import Conversations
from mlintern.tools.data.messages import MessageColumn
from mlintern.tools.data.table import Table

MOST_ROLES = 20


def describe_conversations(table: Table, messages: MessageColumn) -> Conversations | None:
    """Statistics over all rows; None when every conversation is null or empty."""
    items = messages.items
    where = f"FROM {table.scan} WHERE len({items}) > 0"
    characters = f"list_sum(list_transform({items}, lambda m: coalesce(length({messages.content('m')}), 0)))"
    system = f"({messages.role(f'{items}[1]')} = 'system')"
    empty = (
        f"list_filter({items}, lambda m: coalesce(trim({messages.content('m')}, ' \n\t\r'), '') = '' "
        f"AND NOT {messages.tool_calls('m')})"
    )
    row = table.query(
        f"SELECT count(*), min(len({items})), max(len({items})), avg(len({items})), "
        f"{quantile(table, f'len({items})', quantiles='[0.5, 0.95]')}, "
        f"min({characters}), max({characters}), avg({characters}), "
        f"{quantile(table, characters, quantiles='[0.5, 0.95]')}, "
        f"coalesce(count_if({system}), 0), count(DISTINCT md5({messages.content(f'{items}[1]')})) "
        f"FILTER (WHERE {system}), "
        f"coalesce(count_if(len(list_filter({items}, lambda m: {messages.tool_calls('m')})) > 0), 0), "
        f"coalesce(sum(len({empty})), 0) {where}"
    )[0]
    if not row[0]:
        return None
    names = ("shortest", "longest", "mean_length", "quantiles")
    turns = lengths("items", dict(zip(names, row[1:5], strict=True)))
    content = lengths("characters", dict(zip(names, row[5:9], strict=True)))
    assert turns is not None and content is not None  # there is at least one conversation
    return Conversations(
        column=messages.column.name,
        style=messages.style,
        conversations=row[0],
        roles=_counts(table, f"SELECT unnest(list_transform({items}, lambda m: {messages.role('m')})) AS r {where}"),
        turns=turns,
        content_characters=content,
        with_system_prompt=row[9],
        distinct_system_prompts=row[10],
        with_tool_calls=row[11],
        last_speaker=_counts(table, f"SELECT {messages.role(f'{items}[-1]')} AS r {where}"),
        empty_turns=int(row[12]),
    )


def _counts(table: Table, names: str) -> dict[str, int]:
    counted = table.query(
        f"SELECT coalesce(r, '(none)'), count(*) AS n FROM ({names}) GROUP BY 1 ORDER BY n DESC, 1 LIMIT {MOST_ROLES}"
    )
    return {str(name)[:40]: int(count) for name, count in counted}
