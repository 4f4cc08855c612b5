"""Rows of a ledger, as calls write them."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.tables import observations


def call_rows(tenant: str | None, cost: Decimal | None, **more: Any) -> list[dict[str, Any]]:
    """Return the rows of a call: its one attempt, and its request, which comes last."""
    common: dict[str, Any] = {
        "time": datetime.now(UTC),
        "tenant": tenant,
        "chain": "docs",
        "task": "chat",
        "model": "m",
        "provider": "novita",
        "status": "ok",
        "latency_ms": 10.0,
        "input_tokens": 3,
        "cost_usd": cost,
        "caller_key": "k",
        **more,
    }
    request = uuid.uuid4()
    needed: dict[str, Any] = {}
    for column in observations.c:
        if column.nullable:
            # Rows that are inserted together have the same columns.
            needed[column.name] = None
        elif column.name not in common:
            kinds = {sa.Boolean: False, sa.Integer: 0, sa.Float: 0.0}
            needed[column.name] = next((value for kind, value in kinds.items() if isinstance(column.type, kind)), "x")
    return [
        {**needed, **common, "id": uuid.uuid4(), "request": request, "kind": "attempt"},
        {**needed, **common, "id": request, "request": request, "kind": "request"},
    ]
