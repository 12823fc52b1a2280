"""What a human at the dashboard wants of a robot: that it holds, goes on, stops, or does something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from molmoact2.registry import unknown
from molmoact2.tokens.reading import require
from molmoact2.wire.messages import Control

Command: TypeAlias = Literal["hold", "resume", "stop"]
COMMANDS: tuple[Command, ...] = ("hold", "resume", "stop")
EVERYONE = "*"
"""In place of a session: all sessions, also those that begin later."""
MAX_INSTRUCTION = 2000


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of a session now."""

    command: Literal["hold", "stop"] | None = None
    """None lets it act. Either way there are no actions; "stop" also ends the run of a robot that listens."""
    instruction: str | None = None
    """In place of the client's own; None leaves that as it is."""

    @property
    def is_held(self) -> bool:
        """Whether there are no actions."""
        return self.command is not None


NOTHING = Wish()


class Operator:
    """Keeps the wishes, and tells the robots that listen at once. Used from the event loop only."""

    def __init__(self) -> None:
        """Nobody is held."""
        self._wishes: dict[str, Wish] = {}
        self._listeners: dict[str, Callable[[Control], None]] = {}

    def command(self, session: str, command: Command) -> None:
        """Hold, resume or stop a session, or all of them ("*").

        Holding everyone and holding one are taken back separately: a robot moves when neither holds it.
        """
        if command not in COMMANDS:
            raise unknown("command", str(command), COMMANDS)
        kept = None if command == "resume" else command
        self._wishes[session] = replace(self._wishes.get(session, NOTHING), command=kept)
        for listener in self._told(session):
            self._listeners[listener](Control(command=self.wish_of(listener).command or "resume"))

    def instruct(self, session: str, text: str | None) -> None:
        """Replace the instruction of a session, or of all ("*"); None gives the client's own back."""
        require(
            text is None or 0 < len(text.strip()) <= MAX_INSTRUCTION,
            f"An instruction is 1 to {MAX_INSTRUCTION} characters, got {len(text or '')}.",
        )
        self._wishes[session] = replace(self._wishes.get(session, NOTHING), instruction=text)
        for listener in self._told(session):
            self._listeners[listener](Control(instruction=self.wish_of(listener).instruction))

    def wish_of(self, session: str) -> Wish:
        """What is wanted of a session, from what was wanted of it and of everyone."""
        own, all_of_them = self._wishes.get(session, NOTHING), self._wishes.get(EVERYONE, NOTHING)
        commands = (own.command, all_of_them.command)
        strongest = "stop" if "stop" in commands else own.command or all_of_them.command
        return Wish(command=strongest, instruction=own.instruction or all_of_them.instruction)

    @contextmanager
    def heard_by(self, session: str, listener: Callable[[Control], None]) -> Iterator[None]:
        """Within it, `listener` is told what is wanted of the session; at once where something is wanted already."""
        self._listeners[session] = listener
        wish = self.wish_of(session)
        if wish != NOTHING:
            listener(Control(command=wish.command, instruction=wish.instruction))
        try:
            yield
        finally:
            if self._listeners.get(session) is listener:
                del self._listeners[session]

    def forget(self, session: str) -> None:
        """A session is over."""
        self._wishes.pop(session, None)

    def _told(self, session: str) -> list[str]:
        return [name for name in self._listeners if session in (name, EVERYONE)]
