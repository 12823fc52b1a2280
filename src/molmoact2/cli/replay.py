"""`molmoact2 replay LOG`: a flight again, to the bit, or with another checkpoint."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from molmoact2.inference import MolmoAct2Policy
    from molmoact2.serving.flight import Flight, PolicyIdentity
    from molmoact2.serving.flight.replay import Replayed


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Ask everything again that a flight log has.

    Without --policy, or with a copy of the same checkpoint, every answer has to come out the same to the bit; the exit
    code is 1 where one does not. With another checkpoint it is said how far its plans are from those that were
    recorded, joint by joint.
    """

    log: Positional[Path]
    """Folder that `molmoact2 serve --record` wrote."""
    policy: str | None = None
    """Checkpoint folder, hub id or bundled policy to ask; by default the one that the log names."""
    flight: int = -1
    """Which run of the server, from 0; by default the last one."""
    session: str = ""
    """Report on this session only, by the beginning of its id."""
    html: Path | None = None
    """Page to write about another checkpoint."""
    device: str | None = None
    """Where to compute; by default as recorded."""

    def run(self) -> None:
        """Replay, and say what came out."""
        from molmoact2.serving.flight import FlightLog
        from molmoact2.serving.flight.loading import load_recorded
        from molmoact2.tokens.reading import require

        flights = FlightLog(self.log).flights
        is_there = -len(flights) <= self.flight < len(flights)
        require(is_there, f"{self.log} has {len(flights)} flights, 0 to {len(flights) - 1}; got {self.flight}.")
        flight = flights[self.flight]
        policy, identity = load_recorded(flight.policy, self.policy, device=self.device)
        self.describe(flight, identity)
        if identity.fingerprint == flight.policy.fingerprint:
            self.reproduce(flight, policy)
        else:
            self.compare(flight, policy, identity.name)

    def describe(self, flight: "Flight", now: "PolicyIdentity") -> None:
        """Say what the log has, and what is not as it was."""
        from datetime import datetime

        from rich.console import Console

        from molmoact2.serving.flight.loading import strange

        end = "closed" if flight.is_closed else "not closed: the server was stopped, or still runs"
        beginning = "" if flight.has_beginning else ", its beginning deleted"
        Console().print(
            f"Flight of {datetime.fromtimestamp(flight.at):%Y-%m-%d %H:%M:%S}, {end}{beginning}\n"
            f"  {flight.policy.name}  {flight.policy.fingerprint}  {flight.policy.dtype} on {flight.policy.device}, "
            f"{flight.policy.num_threads} threads, torch {flight.policy.torch}",
            highlight=False,
            soft_wrap=True,
        )
        for words in strange(flight.policy, now):
            Console().print(f"  Note that {words}.", highlight=False, soft_wrap=True)

    def answers(self, flight: "Flight", policy: "MolmoAct2Policy") -> Iterator["Replayed"]:
        """What is reported on; ValueError where there is nothing."""
        from molmoact2.serving.flight.replay import replay

        answers = (one for one in replay(flight, policy) if one.exchange.session.startswith(self.session))
        first = next(answers, None)
        if first is None:
            raise ValueError(f"The flight has no answers of session {self.session or '(any)'}.")
        yield first
        yield from answers

    def reproduce(self, flight: "Flight", policy: "MolmoAct2Policy") -> None:
        """Count the answers that are the same to the bit; SystemExit with code 1 where one is not."""
        from rich.console import Console

        verdicts, differences = Counter[str](), list[str]()
        for replayed in self.answers(flight, policy):
            verdicts[replayed.verdict] += 1
            differences += [replayed.difference][: replayed.verdict == "different" and not differences]
        console = Console(soft_wrap=True, highlight=False, markup=False)
        console.print(f"{verdicts['same']} of {verdicts.total()} answers are the same to the bit.")
        if verdicts["doubtful"]:
            console.print(
                f"{verdicts['doubtful']} cannot be judged: they depend on a piece of the log that is missing."
            )
        if differences:
            console.print(f"The first that differs: {differences[0]}")
            raise SystemExit(1)

    def compare(self, flight: "Flight", policy: "MolmoAct2Policy", name: str) -> None:
        """Say how far another checkpoint's plans are from the recorded ones, and write the page."""
        from rich.console import Console

        from molmoact2.evaluation.replay import comparisons, difference
        from molmoact2.evaluation.replay_page import comparison_table, write_replay_page

        console = Console(soft_wrap=True, highlight=False, markup=False)
        differences, errors = [], []
        for replayed in self.answers(flight, policy):
            found = difference(replayed)
            differences += filter(None, [found])
            errors += [replayed.answer][: found is None]
        if not differences:
            raise ValueError(f"{name} answers nothing of what was asked: {errors[0]}")
        if errors:
            console.print(f"{len(errors)} questions got no answer; the first because: {errors[0]}")
        found = comparisons(differences)
        for comparison in found:
            console.print(comparison_table(comparison))
        if self.html is not None:
            method = {"Log": str(self.log), "Recorded policy": flight.policy.name, "Other policy": name}
            write_replay_page(self.html, found, other=name, method=method)
            console.print(f"Page: {self.html}")
