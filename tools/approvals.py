"""A person's consent to one exact action, bound to its digest. No protocol in here, only the ledger.

A decision belongs to the digest it was asked for and to nothing else. An approval holds for a day and starts at most
one action: a job is unique by its digest. What a person has not decided stays pending; nothing decides by default.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from mlintern.common.clock import Clock
from mlintern.common.commands import shown_command
from mlintern.common.consent import Action
from mlintern.tools.allowances import Allowances
from mlintern.tools.errors import BadInput, Conflict, NotFound, OutOfBudget
from mlintern.tools.ledger import Ledger

LIFETIME_SECONDS = 24 * 3600.0
"""How long a decision holds. What was right yesterday should be asked again today."""

SHORTEST_PREFIX = 6
COLUMNS = "id, digest, action, decision, via, note, created_at, decided_at"

State = Literal["pending", "approved", "denied", "used"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of one question. ``via`` is who answered: an allowance, the dialog, the command line, a page."""

    action: Action
    state: State
    via: str
    note: str
    asked_at: float
    decided_at: float | None

    @property
    def digest(self) -> str:
        """What people name the question by."""
        return self.action.consent_digest


class Approvals:
    """Consents in one workspace's ledger. Several servers and the command line may use it at once."""

    def __init__(self, *, ledger: Ledger, clock: Clock, allowances: Allowances | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._allowances = allowances or Allowances()

    def standing(self, action: Action) -> bool:
        """Whether what was allowed in advance covers ``action``; if so, it is approved and charged to it now.

        The check and the charge are one transaction, so that two calls cannot jointly pass a limit.

        Raises:
            OutOfBudget: the workspace's budget does not hold it, so asking a person would change nothing.
        """
        with self._ledger.transaction() as connection:
            decision = self._latest(connection, action)
            if decision is not None and decision.state != "pending":
                return decision.state != "denied" and decision.via.startswith("allowance")
            spent = self._spent(connection)
            self._demand_budget(action, spent)
            rule = self._allowances.covers(
                action,
                usd_spent=spent,
                usd_spent_under=lambda rule: self._spent(connection, allowed_on=rule.backend or ""),
            )
            if rule is None:
                return False
            self._insert(connection, action, state="approved", via=f"allowance {rule}")
            return True

    def pending(self, action: Action) -> Decision:
        """Write down that ``action`` waits for a person, once however often it is asked at the same price."""
        with self._ledger.transaction() as connection:
            decision = self._latest(connection, action)
            if decision is not None and decision.state == "pending" and decision.action == action:
                return decision
            return self._insert(connection, action, state="pending", via="")

    def approve(self, digest: str, *, note: str = "", via: str) -> Decision:
        """Record a person's yes. ``digest`` may be shortened to a prefix that is unique among the questions.

        Raises:
            NotFound: nothing of that digest was asked.
            OutOfBudget: the workspace's budget does not hold it.
        """
        with self._ledger.transaction() as connection:
            row_id, decision = self._find(connection, digest)
            if decision.state in ("approved", "used"):
                return decision
            self._demand_budget(decision.action, self._spent(connection))
            return self._update(connection, row_id, state="approved", note=note, via=via)

    def deny(self, digest: str, *, note: str = "", via: str) -> Decision:
        """Record a person's no, or take back a yes that was not used.

        Raises:
            NotFound: nothing of that digest was asked.
            Conflict: it was approved and has been started.
        """
        with self._ledger.transaction() as connection:
            row_id, decision = self._find(connection, digest)
            if decision.state == "used" or self.became_a_job(decision.action):
                raise Conflict(
                    f"Action {decision.digest} was approved and has been started.",
                    next_step="Cancel the job instead, or undo on the Hub what was published.",
                )
            return self._update(connection, row_id, state="denied", note=note, via=via)

    def decision(self, action: Action) -> Decision | None:
        """The latest word on exactly ``action`` at its price; None if there is none or it has expired."""
        with self._ledger.read() as connection:
            return self._latest(connection, action)

    def became_a_job(self, action: Action) -> bool:
        """Whether the action was started and is on record. A submission that was refused leaves nothing there."""
        with self._ledger.read() as connection:
            found = connection.execute("SELECT 1 FROM jobs WHERE digest = ?", (action.digest,)).fetchone()
            return found is not None

    def use(self, action: Action) -> Decision | None:
        """Spend an approval just before acting on it. Using it again is allowed: the action happens once by digest.

        What is a job already keeps the price that it began with; None if its decision was at another price.

        Raises:
            Conflict: there is no approval in force for exactly this action at this price.
            OutOfBudget: the budget does not hold it; it was approved where the budget was not known.
        """
        with self._ledger.transaction() as connection:
            decision = self._latest(connection, action)
            if decision is None and self.became_a_job(action):
                return None
            if decision is None or decision.state not in ("approved", "used"):
                raise Conflict(
                    f"Action {action.consent_digest} is not approved.", next_step="Ask the user to approve it."
                )
            if decision.state == "used":
                return decision
            spent_on_others = self._spent(connection, without=action.digest)
            self._demand_budget(decision.action, spent_on_others)
            row_id, _ = self._find(connection, action.consent_digest)
            return self._update(connection, row_id, state="used", note=decision.note, via=decision.via)

    def give_back(self, action: Action) -> None:
        """Make a spent approval a spendable one again, after its action was refused and nothing was started.

        A person may then take it back, which frees what it holds of the budget. One that became a job stays spent.
        """
        with self._ledger.transaction() as connection:
            decision = self._latest(connection, action)
            if decision is not None and decision.state == "used" and not self.became_a_job(action):
                row_id, _ = self._find(connection, action.consent_digest)
                self._update(connection, row_id, state="approved", note=decision.note, via=decision.via)

    def list(self, *, state: State | None = None) -> tuple[Decision, ...]:
        """The decisions in force, newest question first; of one ``state`` if given."""
        with self._ledger.read() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM approvals WHERE id IN (SELECT MAX(id) FROM approvals GROUP BY digest)"
                " ORDER BY id DESC"
            ).fetchall()
            decisions = (self._in_force(connection, row) for row in rows)
            return tuple(found for found in decisions if found and (state is None or found.state == state))

    def spent_usd(self) -> float:
        """US dollars at worst: charged and reserved by jobs, plus what is approved and not yet a job."""
        with self._ledger.read() as connection:
            return self._spent(connection)

    def _demand_budget(self, action: Action, usd_spent: float) -> None:
        if self._allowances.within_budget(usd_spent=usd_spent, usd_worst=action.usd_worst):
            return
        raise OutOfBudget(
            f"{action.what}: {action.cost}; {usd_spent:.2f} of the workspace's budget of"
            f" {self._allowances.limit_usd:g} USD is spent or reserved.",
            next_step="Take cheaper hardware or a shorter timeout, or ask the user for more: --budget of the server,"
            " or [budget] in config.toml of the workspace.",
        )

    def _latest(self, connection: sqlite3.Connection, action: Action) -> Decision | None:
        row = connection.execute(
            f"SELECT {COLUMNS} FROM approvals WHERE digest = ? ORDER BY id DESC LIMIT 1", (action.digest,)
        ).fetchone()
        decision = None if row is None else self._in_force(connection, row)
        # A decision at another price is none about this action.
        return decision if decision is not None and decision.digest == action.consent_digest else None

    def _in_force(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Decision | None:
        action = Action.from_json(row["action"])
        since = row["decided_at"] or row["created_at"]
        if self._clock.now() - since > LIFETIME_SECONDS and not self.became_a_job(action):
            return None
        return Decision(
            action=action,
            state=row["decision"],
            via=row["via"],
            note=row["note"],
            asked_at=row["created_at"],
            decided_at=row["decided_at"],
        )

    def _find(self, connection: sqlite3.Connection, digest: str) -> tuple[int, Decision]:
        if len(digest) < SHORTEST_PREFIX or not digest.isalnum():
            raise BadInput(
                f"{digest!r} is not a digest.",
                next_step=f"Copy it from the question or from: {shown_command('mlintern-server', 'approvals')}",
            )
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM approvals WHERE id IN (SELECT MAX(id) FROM approvals GROUP BY digest)"
        ).fetchall()
        decisions = ((row["id"], decision) for row in rows if (decision := self._in_force(connection, row)))
        found = [(row_id, decision) for row_id, decision in decisions if decision.digest.startswith(digest)]
        if not found:
            raise NotFound(
                f"No question with digest {digest} is open; if the price changed, it was asked again under another.",
                next_step=f"See what waits: {shown_command('mlintern-server', 'approvals')}",
            )
        if len(found) > 1:
            raise BadInput(f"Several actions begin with {digest}.", next_step="Give more of the digest.")
        return found[0]

    def _insert(self, connection: sqlite3.Connection, action: Action, *, state: State, via: str) -> Decision:
        now = self._clock.now()
        decided_at = None if state == "pending" else now
        connection.execute(
            "INSERT INTO approvals (digest, action, decision, via, usd_worst, created_at, decided_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (action.digest, action.to_json(), state, via, action.usd_worst, now, decided_at),
        )
        return Decision(action=action, state=state, via=via, note="", asked_at=now, decided_at=decided_at)

    def _update(self, connection: sqlite3.Connection, row_id: int, *, state: State, note: str, via: str) -> Decision:
        connection.execute(
            "UPDATE approvals SET decision = ?, note = ?, via = ?, decided_at = ? WHERE id = ?",
            (state, note, via, self._clock.now(), row_id),
        )
        row = connection.execute(f"SELECT {COLUMNS} FROM approvals WHERE id = ?", (row_id,)).fetchone()
        decision = self._in_force(connection, row)
        assert decision is not None, "a decision made now is in force"
        return decision

    def _spent(self, connection: sqlite3.Connection, *, allowed_on: str | None = None, without: str = "") -> float:
        """US dollars at worst; ``allowed_on`` a backend counts only what allowances started there, "" on any."""
        query = """
            SELECT COALESCE(SUM(usd), 0) FROM (
                SELECT j.digest AS digest, j.backend AS backend,
                       CASE WHEN m.settled THEN m.usd_charged ELSE MAX(m.usd_reserved, m.usd_charged) END AS usd
                FROM money m JOIN jobs j USING (job_id)
                UNION ALL
                SELECT a.digest, json_extract(a.action, '$.where'), a.usd_worst
                FROM approvals a
                WHERE a.id IN (SELECT MAX(id) FROM approvals GROUP BY digest)
                      AND a.decision IN ('approved', 'used') AND a.decided_at > :since AND a.usd_worst IS NOT NULL
                      AND a.digest NOT IN (SELECT digest FROM jobs)
            ) WHERE digest <> :without
        """
        values: dict[str, Any] = {"since": self._clock.now() - LIFETIME_SECONDS, "without": without}
        if allowed_on is not None:
            query += """
                AND (backend = :backend OR :backend = '')
                AND digest IN (SELECT digest FROM approvals WHERE via LIKE 'allowance %')
            """
            values["backend"] = allowed_on
        return float(connection.execute(query, values).fetchone()[0])
