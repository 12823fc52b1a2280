"""One person at a terminal: keys while the robot moves, without waiting for any.

    s  success      f  failure      space  hold, and resume      i  another instruction      q  stop

Without a terminal nobody presses keys, and everything else works.
"""

import codecs
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Literal

from molmoact2.control.observing import Silent, Tick
from molmoact2.wire.messages import Control

HELP = "s success · f failure · space hold/resume · i instruction · q stop"
ENTER, ESCAPE, ERASE = ("\r", "\n"), "\x1b", ("\x7f", "\b")
MOST_KEYS = 1024
"""That are read at once."""
VERDICTS: dict[str, Literal["success", "failure"]] = {"s": "success", "f": "failure"}


@dataclass(kw_only=True)
class Operator(Silent):
    """What people want: key by key, and from a dashboard. Observes the robot, to know what a key means just now."""

    verdict: Literal["success", "failure"] | None = None
    """Of the present episode."""
    has_quit: bool = False
    is_holding: bool = False
    """Whether the arm waits for a person to resume it."""
    draft: str | None = None
    """The instruction that is being typed; None while none is."""
    wanted: list[Control] = field(default_factory=list)

    def begin(self, *, held: bool = False) -> None:
        """Another episode, which waits for a person where it begins `held`."""
        self.verdict = None
        self.wanted[:] = [Control(command="hold")] * held

    def ticked(self, tick: Tick, /) -> None:
        """See whether the arm holds."""
        self.is_holding = tick.waits_for_resume

    def verdict_on(self, reason: str) -> str:
        """How the episode ended: as the person at the keys says, or else for the reason that the loop had."""
        return {"success": "success", "failure": "failed, says the operator", None: reason}[self.verdict]

    def heard(self, wishes: Sequence[Control]) -> None:
        """What somebody at a dashboard wants; to stop there is to end the run."""
        self.wanted += wishes
        self.has_quit = self.has_quit or any(wish.command == "stop" for wish in wishes)

    def press(self, key: str) -> None:
        """One key was pressed. While an instruction is typed, all keys are letters of it."""
        if self.draft is not None:
            self._type(key, self.draft)
            return
        match key:
            case "s" | "f":
                self.verdict = VERDICTS[key]
                self.wanted.append(Control(command="stop"))
            case "q":
                self.has_quit = True
                self.wanted.append(Control(command="stop"))
            case " ":
                self.wanted.append(Control(command="resume" if self.is_holding else "hold"))
            case "i":
                self.draft = ""

    def take(self) -> Sequence[Control]:
        """What was wanted since the last call."""
        taken = tuple(self.wanted)
        self.wanted.clear()
        return taken

    def _type(self, key: str, draft: str) -> None:
        """A letter of an instruction: Enter gives it, Escape takes it back."""
        if key in ENTER:
            self.wanted += [Control(instruction=draft.strip())] if draft.strip() else []
            self.draft = None
        elif key == ESCAPE:
            self.draft = None
        elif key in ERASE:
            self.draft = draft[:-1]
        elif key.isprintable():
            self.draft = draft + key


class Terminal:
    """Keys of a terminal in raw mode; see `open_terminal`."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def keys(self) -> str:
        """What was typed since the last call; returns at once."""
        if self.descriptor is None or not select.select([self.descriptor], [], [], 0)[0]:
            return ""
        return self.decoder.decode(os.read(self.descriptor, MOST_KEYS))


@contextmanager
def open_terminal(stream: IO[str] = sys.stdin) -> Iterator[Terminal]:
    """Read single keys of `stream`; its old manners are back when the block ends, however it ends.

    Where it is no terminal there are no keys. Ctrl-C goes on meaning what it means.
    """
    if not stream.isatty():
        yield Terminal(None)
        return
    import termios
    import tty

    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Terminal(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
