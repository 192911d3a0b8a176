"""What was received and what became of it: alerts, episodes and deliveries, in one database.

Every public method is one transaction. The rows say which jobs are due. The module ``work`` starts
them, and dbos, a library for durable jobs, carries them out. Times and incidents are text in the
tables; the empty string means that there is none yet.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import event

from runbook_lib.model import format_time, parse_time
from runbook_lib.record.journal import Clock, utc_now

from .payload import Alert

_TABLES = sa.MetaData()

_alerts = sa.Table(
    "serve_alerts",
    _TABLES,
    sa.Column("fingerprint", sa.String, primary_key=True),
    sa.Column("starts_at", sa.String, primary_key=True),
    sa.Column("episode", sa.Integer, nullable=False, index=True),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("ends_at", sa.String, nullable=False),
    sa.Column("received_at", sa.String, nullable=False),
    sa.Column("reported_at", sa.String, nullable=False, index=True),
)
_episodes = sa.Table(
    "serve_episodes",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("drill", sa.Boolean, nullable=False),
    sa.Column("looks", sa.Integer, nullable=False),
    sa.Column("additions", sa.Integer, nullable=False, default=0),  # no longer used
    sa.Column("looked_at", sa.String, nullable=False),
    sa.Column("stale", sa.Boolean, nullable=False),
    sa.Column("incident", sa.String, nullable=False),
    sa.Column("ended_at", sa.String, nullable=False),
)
_deliveries = sa.Table(
    "serve_deliveries",
    _TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("made_at", sa.String, nullable=False),
)
#: The most fingerprints in one statement. SQLite allows no more than 32,766 variables.
_BATCH = 500


class Received(NamedTuple):
    """What became of the alerts of one request.

    Attributes
    ----------
    accepted : how many are new and fire
    folded : how many were known, or began and ended before we heard of them
    """

    accepted: int
    folded: int


class Episode(NamedTuple):
    """Alerts that overlap in time, or fire again within the cooldown: one trouble, one report.

    Attributes
    ----------
    is_drill : whether all its alerts rest on synthetic objects alone
    looks : how many investigations there were
    looked_at : when the newest look ended; None before the first look
    is_stale : whether it needs a look: an alert joined it, all its alerts were resolved, or
        an upgrade cancelled a job of the episode
    incident : the incident that its looks found; empty before that
    ended_at : when the episode was written down as over; None before
    """

    id: int
    is_drill: bool
    looks: int
    looked_at: datetime | None
    is_stale: bool
    incident: str
    ended_at: datetime | None


class KnownAlert(NamedTuple):
    """One alert of an episode.

    Attributes
    ----------
    ended_at : None while the alert fires
    is_reported : whether a report, or a message about a failed look, names the alert
    """

    fingerprint: str
    labels: dict[str, str]
    started_at: datetime
    ended_at: datetime | None
    is_reported: bool


class Delivery(NamedTuple):
    """One message to one target.

    Attributes
    ----------
    message : the content, with the fields of ``targets.Message`` except ``id``
    state : one of ``targets.State``
    detail : why the newest attempt failed; empty when it did not
    """

    id: str
    target: str
    message: dict[str, str]
    state: str
    detail: str
    made_at: datetime


class Waiting(NamedTuple):
    """How many alerts are not reported yet, and when the oldest of these was received."""

    alerts: int
    oldest: datetime | None


class _CurrentEpisode:
    """The newest episode of drills or of real alerts, while ``Book.receive`` adds to it.

    Attributes
    ----------
    fingerprints, ends : of the episode's alerts; an end is empty while the alert fires
    """

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.fingerprints: set[str] = set()
        self.ends: set[str] = set()

    @property
    def end(self) -> datetime | None:
        """When the episode was written down as over, else its last alert's end; None: not over."""
        if self.episode.ended_at is not None:
            return self.episode.ended_at
        if not self.ends or "" in self.ends:
            return None
        return max(map(parse_time, self.ends))


def connect_database(url: str) -> sa.Engine:
    """Return an engine for our tables. SQLite is set to write to disk before a commit returns."""
    engine = sa.create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def set_pragmas(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
            connection.isolation_level = "IMMEDIATE"
            cursor = connection.cursor()
            for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    return engine


class Book:
    """Reads and writes the tables.

    Parameters
    ----------
    engine : made by ``connect_database``
    cooldown : the time after a look in which an alert that fires again joins the same episode
    """

    def __init__(self, engine: sa.Engine, *, cooldown: timedelta, clock: Clock = utc_now) -> None:
        self._engine = engine
        self._cooldown = cooldown
        self._clock = clock
        # Two requests at once would otherwise begin two episodes.
        self._receiving = threading.Lock()
        _TABLES.create_all(engine)

    def receive(self, alerts: Sequence[Alert], *, closed: dict[str, datetime]) -> Received:
        """Write down each new alert that fires, as part of an episode, and the ends of known ones.

        Parameters
        ----------
        closed : the closed incidents, with the times of their closes. If the newest episode has
            one of them, this episode is over, too
        """
        accepted = 0
        with self._receiving, self._engine.begin() as db:
            known_ends = _read_known_ends(db, alerts)
            current_by_kind: dict[bool, _CurrentEpisode | None] = {}
            for is_drill in {alert.is_drill for alert in alerts}:
                current_by_kind[is_drill] = self._update_current(db, closed, is_drill=is_drill)
            for alert in alerts:
                ends_at = _get_end(alert)
                if alert.key in known_ends:
                    if ends_at and not known_ends[alert.key]:
                        self._resolve(db, alert, ends_at)
                        known_ends[alert.key] = ends_at
                    continue
                if ends_at:
                    continue  # the alert began and ended before we heard of it
                current = self._join_or_begin_episode(db, alert, current_by_kind[alert.is_drill])
                current_by_kind[alert.is_drill] = current
                self._add(db, alert, current)
                known_ends[alert.key] = ""
                accepted += 1
        return Received(accepted, len(alerts) - accepted)

    def _update_current(
        self, db: sa.Connection, closed: dict[str, datetime], *, is_drill: bool
    ) -> _CurrentEpisode | None:
        """Return the newest episode, of drills or of real alerts; None if there is none.

        If its incident was closed, write down first that the episode is over.
        """
        episode = _find_newest(db, _episodes.c.drill == is_drill)
        if episode is None:
            return None
        closed_at = closed.get(episode.incident)
        if closed_at is not None and episode.ended_at is None:
            _update_episode(db, episode.id, ended_at=format_time(closed_at))
            episode = episode._replace(ended_at=closed_at)
        current = _CurrentEpisode(episode)
        query = sa.select(_alerts).where(_alerts.c.episode == episode.id)
        for row in db.execute(query):
            current.fingerprints.add(row.fingerprint)
            current.ends.add(row.ends_at)
        return current

    def _join_or_begin_episode(
        self, db: sa.Connection, alert: Alert, current: _CurrentEpisode | None
    ) -> _CurrentEpisode:
        """Return the episode for a new alert: the current one, or one that begins here.

        One begins when the alert started after the current episode was over. But an alert that
        fires again before the cooldown has passed joins the current episode, unless the episode
        was written down as over. The episode is marked for a look.
        """
        if current is None:
            return self._begin_episode(db, is_drill=alert.is_drill)
        episode = current.episode
        looked_at = episode.looked_at
        has_cooled_down = looked_at is not None and self._clock() >= looked_at + self._cooldown
        fires_again_soon = alert.fingerprint in current.fingerprints and not has_cooled_down
        may_reopen = fires_again_soon and episode.ended_at is None
        is_over = current.end is not None and alert.starts_at > current.end
        if is_over and not may_reopen:
            return self._begin_episode(db, is_drill=alert.is_drill)
        _update_episode(db, episode.id, stale=True)
        return current

    def _begin_episode(self, db: sa.Connection, *, is_drill: bool) -> _CurrentEpisode:
        values = {
            "drill": is_drill,
            "looks": 0,
            "looked_at": "",
            "stale": True,  # its first look is due
            "incident": "",
            "ended_at": "",
        }
        insert = sa.insert(_episodes).values(values).returning(_episodes)
        row = db.execute(insert).one()
        return _CurrentEpisode(_read_episode(row))

    def _add(self, db: sa.Connection, alert: Alert, current: _CurrentEpisode) -> None:
        """Write a new alert down as part of an episode. It fires, and is not reported yet."""
        fingerprint, starts_at = alert.key
        current.fingerprints.add(fingerprint)
        current.ends.add("")
        values = {
            "fingerprint": fingerprint,
            "starts_at": starts_at,
            "episode": current.episode.id,
            "labels": json.dumps(alert.labels),
            "ends_at": "",
            "received_at": format_time(self._clock()),
            "reported_at": "",
        }
        db.execute(sa.insert(_alerts).values(values))

    def _resolve(self, db: sa.Connection, alert: Alert, ends_at: str) -> None:
        """Write down that an alert ended. If no other alert of its episode fires, a look is due."""
        fingerprint, starts_at = alert.key
        is_own = (_alerts.c.fingerprint == fingerprint) & (_alerts.c.starts_at == starts_at)
        resolved = sa.update(_alerts).where(is_own).values(ends_at=ends_at)
        episode_id = db.execute(resolved.returning(_alerts.c.episode)).scalar_one()
        firing = sa.select(sa.func.count()).where(
            _alerts.c.episode == episode_id, _alerts.c.ends_at == ""
        )
        if db.execute(firing).scalar_one() == 0:
            _update_episode(db, episode_id, stale=True)

    def read_waiting(self) -> Waiting:
        """Return how many alerts are not reported yet, and since when. Only reads."""
        query = sa.select(sa.func.count(), sa.func.min(_alerts.c.received_at))
        with self._engine.connect() as db:
            count, oldest = db.execute(query.where(_alerts.c.reported_at == "")).one()
        return Waiting(count, parse_time(oldest) if oldest else None)

    def list_open_incidents(self) -> list[str]:
        """Return the incidents of the newest 20 episodes that are not over. Only reads."""
        query = sa.select(_episodes.c.incident).where(
            _episodes.c.ended_at == "", _episodes.c.incident != ""
        )
        newest = query.order_by(_episodes.c.id.desc()).limit(20)
        with self._engine.connect() as db:
            return list(db.execute(newest).scalars())

    def list_stale_episodes(self) -> list[Episode]:
        """Return episodes that need a look, the oldest first. Only reads."""
        query = sa.select(_episodes).where(_episodes.c.stale.is_(True)).order_by(_episodes.c.id)
        with self._engine.connect() as db:
            return [_read_episode(row) for row in db.execute(query)]

    def read_episode(self, episode_id: int) -> Episode:
        """Return one episode. Only reads."""
        query = sa.select(_episodes).where(_episodes.c.id == episode_id)
        with self._engine.connect() as db:
            return _read_episode(db.execute(query).one())

    def list_alerts(self, episode_id: int) -> list[KnownAlert]:
        """Return an episode's alerts, sorted by their start. Only reads."""
        query = sa.select(_alerts).where(_alerts.c.episode == episode_id)
        order = (_alerts.c.starts_at, _alerts.c.fingerprint)
        with self._engine.connect() as db:
            return [_read_alert(row) for row in db.execute(query.order_by(*order))]

    def begin_look(self, episode_id: int) -> None:
        """Write down that a look begins. Changes from now on make another look due."""
        with self._engine.begin() as db:
            _update_episode(db, episode_id, stale=False)

    def ask_for_look(self, episode_id: int) -> None:
        """Write down that an episode needs a look."""
        with self._engine.begin() as db:
            _update_episode(db, episode_id, stale=True)

    def end_look(self, episode_id: int, *, look: int, incident: str) -> None:
        """Write down the number of the look that ended, and its incident.

        An empty ``incident`` leaves the episode's incident as it is.
        """
        looked_at = format_time(self._clock())
        with self._engine.begin() as db:
            _update_episode(db, episode_id, looks=look, looked_at=looked_at)
            if incident:
                _update_episode(db, episode_id, incident=incident)

    def end_episode(self, episode_id: int) -> None:
        """Write down that an episode is over; it needs no look any more."""
        ended_at = format_time(self._clock())
        with self._engine.begin() as db:
            _update_episode(db, episode_id, ended_at=ended_at, stale=False)

    def mark_reported(self, episode_id: int, keys: Iterable[Sequence[str]]) -> None:
        """Write down that alerts are reported (see ``KnownAlert``), and when.

        An alert that was reported before keeps its time. Each key is a fingerprint and a start.
        """
        reported_at = format_time(self._clock())
        with self._engine.begin() as db:
            for fingerprint, starts_at in keys:
                is_own = (
                    (_alerts.c.episode == episode_id)
                    & (_alerts.c.fingerprint == fingerprint)
                    & (_alerts.c.starts_at == starts_at)
                    & (_alerts.c.reported_at == "")
                )
                db.execute(sa.update(_alerts).where(is_own).values(reported_at=reported_at))

    def add_delivery(self, delivery_id: str, target: str, message: dict[str, str]) -> None:
        """Write down a message to deliver. If the id exists, the old message stays as it is."""
        values = {
            "id": delivery_id,
            "target": target,
            "message": json.dumps(message),
            "state": "waiting",
            "detail": "",
            "made_at": format_time(self._clock()),
        }
        is_known = sa.select(_deliveries.c.id).where(_deliveries.c.id == delivery_id)
        with self._engine.begin() as db:
            if db.execute(is_known).first() is None:
                db.execute(sa.insert(_deliveries).values(values))

    def read_delivery(self, delivery_id: str) -> Delivery:
        """Return a delivery. Only reads."""
        with self._engine.connect() as db:
            query = sa.select(_deliveries).where(_deliveries.c.id == delivery_id)
            return _read_delivery(db.execute(query).one())

    def set_delivery(self, delivery_id: str, state: str, detail: str = "") -> None:
        """Write down a delivery's state (``targets.State``), and why its newest attempt failed."""
        changed = sa.update(_deliveries).where(_deliveries.c.id == delivery_id)
        with self._engine.begin() as db:
            db.execute(changed.values(state=state, detail=detail))

    def count_waiting_deliveries(self) -> dict[str, int]:
        """Return how many deliveries wait, by target. Only reads."""
        query = sa.select(_deliveries.c.target, sa.func.count())
        waiting = query.where(_deliveries.c.state == "waiting").group_by(_deliveries.c.target)
        with self._engine.connect() as db:
            return {row[0]: row[1] for row in db.execute(waiting)}

    def list_waiting_deliveries(self, target: str) -> list[str]:
        """Return the ids of a target's deliveries that wait, the oldest first. Only reads."""
        query = sa.select(_deliveries.c.id).where(
            _deliveries.c.target == target, _deliveries.c.state == "waiting"
        )
        with self._engine.connect() as db:
            ordered = query.order_by(_deliveries.c.made_at, _deliveries.c.id)
            return list(db.execute(ordered).scalars())

    def list_deliveries(self, name: str) -> list[Delivery]:
        """Return the deliveries whose id begins with a name, the oldest first. Only reads.

        ``name`` is an incident, or an incident with its episode and look. Without an incident,
        ``episode-`` and the episode's number stand for it.
        """
        query = sa.select(_deliveries).where(_deliveries.c.id.startswith(f"{name}-"))
        with self._engine.connect() as db:
            return [_read_delivery(row) for row in db.execute(query.order_by("made_at"))]


def _find_newest(db: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Episode | None:
    """Return the newest episode that meets all conditions; None without one."""
    query = sa.select(_episodes).where(*conditions)
    newest = query.order_by(_episodes.c.id.desc()).limit(1)
    row = db.execute(newest).first()
    if row is None:
        return None
    return _read_episode(row)


def _update_episode(db: sa.Connection, episode_id: int, **values: object) -> None:
    """Set columns of one episode; each keyword argument is a column and its new value."""
    is_own = _episodes.c.id == episode_id
    db.execute(sa.update(_episodes).where(is_own).values(values))


def _read_known_ends(db: sa.Connection, alerts: Sequence[Alert]) -> dict[tuple[str, str], str]:
    """Return the ends of all alerts in the book that have the fingerprint of a given alert.

    The keys are as in ``Alert.key``. An end is empty while the alert fires.
    """
    known_ends = {}
    fingerprints = sorted({alert.fingerprint for alert in alerts})
    columns = (_alerts.c.fingerprint, _alerts.c.starts_at, _alerts.c.ends_at)
    for start in range(0, len(fingerprints), _BATCH):
        batch = fingerprints[start : start + _BATCH]
        query = sa.select(*columns).where(_alerts.c.fingerprint.in_(batch))
        for fingerprint, starts_at, ends_at in db.execute(query):
            known_ends[fingerprint, starts_at] = ends_at
    return known_ends


def _get_end(alert: Alert) -> str:
    """Return when an alert ended: its start, if the end is missing. Empty while the alert fires."""
    if alert.status != "resolved":
        return ""
    return format_time(alert.ends_at or alert.starts_at)


def _read_time(text: str) -> datetime | None:
    """Return the time in a column; None when the column is empty."""
    return parse_time(text) if text else None


def _read_episode(row: sa.Row[tuple[object, ...]]) -> Episode:
    return Episode(
        id=row.id,
        is_drill=row.drill,
        looks=row.looks,
        looked_at=_read_time(row.looked_at),
        is_stale=row.stale,
        incident=row.incident,
        ended_at=_read_time(row.ended_at),
    )


def _read_alert(row: sa.Row[tuple[object, ...]]) -> KnownAlert:
    return KnownAlert(
        fingerprint=row.fingerprint,
        labels=json.loads(row.labels),
        started_at=parse_time(row.starts_at),
        ended_at=_read_time(row.ends_at),
        is_reported=bool(row.reported_at),
    )


def _read_delivery(row: sa.Row[tuple[object, ...]]) -> Delivery:
    return Delivery(
        id=row.id,
        target=row.target,
        message=json.loads(row.message),
        state=row.state,
        detail=row.detail,
        made_at=parse_time(row.made_at),
    )
