"""Sessions of clients that connect anew for every question, and name their session by themselves, or not at all."""

from molmoact2.serving.desk import Desk
from molmoact2.serving.dialects.rows import Rows
from molmoact2.serving.sessions import ServedSession


class NamedSessions:
    """A name means something to the address that it comes from only."""

    def __init__(self, desk: Desk, dialect: str) -> None:
        """None yet."""
        self.desk, self.dialect = desk, dialect
        self._kept: dict[tuple[str, str | None], tuple[str, Rows]] = {}

    def of(self, client: str, name: str | None) -> tuple[ServedSession, Rows]:
        """The session of this name. Without a name nothing is remembered, and each question stands for itself."""
        session_id, rows = self._kept.get((client, name), ("", Rows()))
        session = self.desk.engine.sessions.find(session_id)
        if session is None:
            alive = set(self.desk.engine.sessions)
            self._kept = {key: kept for key, kept in self._kept.items() if kept[0] in alive}
            called = client if name is None else f"{name[:40]!r} at {client}"
            remembers = name is not None
            session = self.desk.engine.sessions.open(client=called, dialect=self.dialect, remembers=remembers)
            rows = Rows()
            self._kept[client, name] = (session.id, rows)
        return session, rows

    def remove(self, client: str, *, name: object, prefix: object) -> int:
        """Forget the session of a name, and those whose names begin with "prefix:"; without either, all of the client.

        Returns how many there were.
        """
        mine = {key: key[1] for key in self._kept if key[0] == client and key[1] is not None}
        is_wanted = {key: own in (name, prefix) or own.startswith(f"{prefix}:") for key, own in mine.items()}
        gone = [key for key in mine if is_wanted[key] or not (name or prefix)]
        for key in gone:
            self.desk.engine.sessions.close(self._kept.pop(key)[0])
        return len(gone)
