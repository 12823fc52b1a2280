"""Which question is answered when, with which noise, and what becomes of the others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from served_policies import Scripted, question, tiny_policy

from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.inference.session import Session
from molmoact2.serving.computing import answer_together
from molmoact2.serving.engine import Engine, EngineSettings
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.sessions import ServedSession, Sessions
from molmoact2.serving.waiting import NOT_COMPUTED, Waiting
from molmoact2.testing import fake_observation
from molmoact2.types import ActionChunk, Committed, Observation
from molmoact2.wire.limits import WireError


class Diary:
    """A watcher that writes everything down."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.failures: list[tuple[str, str, str]] = []
        self.over: list[str] = []

    def exchanged(self, exchange: Exchange, /) -> None:
        self.exchanges.append(exchange)

    def moved(self, session: str, telemetry: object, /) -> None: ...

    def failed(self, where: str, error_id: str, message: str, /) -> None:
        self.failures.append((where, error_id, message))

    def ended(self, session: str, /) -> None:
        self.over.append(session)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MolmoAct2Policy:
    return tiny_policy(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def thinker(golden: Path) -> MolmoAct2Policy:
    return load_policy(golden / "tiny-think")


@pytest.fixture
def scripted(tiny: MolmoAct2Policy) -> Scripted:
    return Scripted(tiny)


@asynccontextmanager
async def running(policy: MolmoAct2Policy, diary: Diary | None = None, **settings) -> AsyncIterator[Engine]:
    engine = Engine(policy, settings=EngineSettings(**settings), watchers=[diary or Diary()])
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.state != "starting")
    try:
        yield engine
    finally:
        engine.drain()
        await task
        engine.raise_if_broken()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


def opened(engine: Engine, count: int = 1) -> list[ServedSession]:
    return [engine.sessions.open(client="a test", dialect="none") for _ in range(count)]


async def asked(engine: Engine, session: ServedSession, number: int = 0, **fields) -> "asyncio.Task[Exchange]":
    """A question that is waiting, or being answered, or refused."""
    task = asyncio.create_task(engine.ask(session, question(number, **fields)))
    await asyncio.sleep(0)
    return task


async def held_up(engine: Engine, policy: Scripted) -> "asyncio.Task[Exchange]":
    """Give the worker something that lasts until `policy.gate` is set."""
    policy.gate.clear()
    task = await asked(engine, opened(engine)[0], 99)
    await asyncio.to_thread(policy.begun.acquire)
    return task


def code_of(exchange: Exchange) -> str | None:
    return None if exchange.refusal is None else exchange.refusal[0]


def test_an_answer_is_what_the_policy_says_with_its_seed(tiny: MolmoAct2Policy):
    async def story() -> Exchange:
        async with running(tiny) as engine:
            return await engine.ask(opened(engine)[0], question(3, num_steps=2), arrived_s=None)

    exchange = asyncio.run(story())
    alone = tiny.act(fake_observation(seed=3), seed=exchange.question.seed, num_steps=2)
    assert exchange.chunk is not None
    np.testing.assert_array_equal(exchange.chunk.actions, alone.actions)
    assert exchange.observed_at == 1.5
    assert 0 <= exchange.queue_s <= exchange.total_s
    assert exchange.inference_s <= exchange.total_s


def test_batches_equal_single_answers_and_can_be_asked_again(tiny: MolmoAct2Policy):
    async def story() -> list[Exchange]:
        async with running(tiny, max_batch=4) as engine:
            tasks = [await asked(engine, session, i) for i, session in enumerate(opened(engine, 5))]
            return [await task for task in tasks]

    exchanges = asyncio.run(story())
    together = [exchange for exchange in exchanges if exchange.batch == exchanges[-1].batch]
    assert len({exchange.batch for exchange in exchanges}) < 5, "nothing was computed together"
    assert {exchange.together for exchange in together} == {len(together)}
    assert all(exchange.remembers for exchange in exchanges)
    assert [exchange.number for exchange in exchanges] == sorted(exchange.number for exchange in exchanges)
    for exchange in exchanges:
        assert exchange.chunk is not None
        alone = tiny.act(exchange.question.observation, seed=exchange.question.seed)
        np.testing.assert_allclose(exchange.chunk.actions, alone.actions, atol=1e-3)
    again = answer_together(tiny, [one.question for one in together], [Session() for _ in together])
    for exchange, chunk in zip(together, again, strict=True):
        assert exchange.chunk is not None
        np.testing.assert_array_equal(exchange.chunk.actions, chunk.actions)


def test_seeds_follow_from_the_reset_and_are_otherwise_fresh(scripted: Scripted):
    async def story() -> list[int]:
        async with running(scripted) as engine:
            (session,) = opened(engine)
            seeds = []
            for reset in (7, 7, None):
                engine.reset(session, reset)
                seeds += [(await engine.ask(session, question())).question.seed for _ in range(2)]
            return [*seeds, (await engine.ask(session, question(seed=5))).question.seed]

    first, second, third, fourth, fifth, sixth, own = asyncio.run(story())
    assert (first, second) == (third, fourth)
    assert len({first, second, fifth, sixth}) == 4
    assert own == 5


def test_the_newest_observation_wins_and_keeps_the_place_in_line(scripted: Scripted):
    async def story() -> list[Exchange]:
        async with running(scripted, max_batch=1) as engine:
            busy = await held_up(engine, scripted)
            early, late = opened(engine, 2)
            tasks = [await asked(engine, early, 0), await asked(engine, late, 1), await asked(engine, early, 2)]
            scripted.gate.set()
            return [await task for task in (busy, *tasks)]

    _, old, other, new = asyncio.run(story())
    assert code_of(old) == "superseded"
    assert old.batch == NOT_COMPUTED
    assert code_of(other) is code_of(new) is None
    assert new.number < other.number, "a newer observation lost the place of the older one"


def test_questions_without_a_session_do_not_take_each_others_place(scripted: Scripted):
    async def story() -> list[Exchange]:
        async with running(scripted) as engine:
            await held_up(engine, scripted)
            nameless = engine.sessions.open(client="a test", dialect="none", remembers=False)
            tasks = [await asked(engine, nameless, number) for number in range(3)]
            scripted.gate.set()
            return [await task for task in tasks]

    exchanges = asyncio.run(story())
    assert [(code_of(exchange), exchange.remembers) for exchange in exchanges] == [(None, False)] * 3


def test_what_is_too_much_is_refused_and_told_when_to_come_back(scripted: Scripted):
    async def story() -> tuple[list[Exchange], float]:
        async with running(scripted, queue=2) as engine:
            await held_up(engine, scripted)
            sessions = opened(engine, 3)
            tasks = [await asked(engine, session) for session in sessions]
            newer = await asked(engine, sessions[0], 1)
            retry_after_s = engine.retry_after_s
            scripted.gate.set()
            return [await task for task in (*tasks, newer)], retry_after_s

    (superseded, second, third, newer), retry_after_s = asyncio.run(story())
    assert [code_of(one) for one in (superseded, second, third, newer)] == ["superseded", None, "busy", None]
    assert retry_after_s > 0


def test_what_is_late_is_not_computed_and_not_answered(scripted: Scripted, monkeypatch: pytest.MonkeyPatch):
    now_s = [0.0]
    is_late = Waiting.is_late
    monkeypatch.setattr(Waiting, "is_late", lambda self, _: is_late(self, self.arrived_s + now_s[0]))

    async def story() -> tuple[Exchange, Exchange]:
        async with running(scripted) as engine:
            busy = await held_up(engine, scripted)
            waiting = await asked(engine, opened(engine)[0], deadline_s=2.0)
            now_s[0] = 2.1
            scripted.gate.set()
            late = await waiting
            await busy
            now_s[0] = 0.0
            scripted.gate.clear()
            running_one = await asked(engine, opened(engine)[0], deadline_s=2.0)
            await asyncio.to_thread(scripted.begun.acquire)
            now_s[0] = 2.1
            scripted.gate.set()
            return late, await running_one

    waited, finished_late = asyncio.run(story())
    assert code_of(waited) == code_of(finished_late) == "late"
    assert waited.batch == NOT_COMPUTED != finished_late.batch
    assert finished_late.chunk is None
    assert scripted.batches == [1, 1]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"embodiment": "a toaster"}, "so101_tabletop"),
        ({"num_steps": 65}, "64"),
        ({"num_action_steps": 17}, "16"),
        ({"mode": "discrete"}, "continuous"),
        ({"think": True}, "think"),
        ({"seed": 2**63}, "seed"),
        ({"committed": Committed(actions=np.zeros((2, 5), np.float32), delay=1)}, "committed"),
        ({"observation": Observation(images={}, state=np.zeros(6), instruction="x")}, "front"),
        ({"observation": replace(fake_observation(), state=np.zeros(5))}, "state"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_waits(scripted: Scripted, fields: dict, word: str):
    async def story() -> Exchange:
        async with running(scripted) as engine:
            return await engine.ask(opened(engine)[0], question(**fields))

    exchange = asyncio.run(story())
    assert exchange.refusal is not None
    assert exchange.refusal[0] == "unfit"
    assert word in exchange.refusal[1]
    assert scripted.batches == []


def test_committed_rows_reach_the_policy(tiny: MolmoAct2Policy):
    plan = tiny.act(fake_observation(seed=1), seed=4).actions
    committed = Committed(actions=plan[:8], delay=4)

    async def story() -> Exchange:
        async with running(tiny) as engine:
            return await engine.ask(opened(engine)[0], question(1, seed=9, committed=committed))

    exchange = asyncio.run(story())
    direct = tiny.act(fake_observation(seed=1), seed=9, committed=committed)
    assert exchange.chunk is not None
    np.testing.assert_array_equal(exchange.chunk.actions, direct.actions)
    assert not np.array_equal(direct.actions, tiny.act(fake_observation(seed=1), seed=9).actions)


def test_one_question_that_fails_harms_no_other_of_its_batch(tiny: MolmoAct2Policy, monkeypatch: pytest.MonkeyPatch):
    def picky(self: Scripted, observation, embodiment=None, **options):
        if isinstance(observation, list) and any("spoil" in one.instruction for one in observation):
            raise ValueError("This one spoils it.")
        return original(self, observation, embodiment, **options)

    scripted, original = Scripted(tiny), Scripted.act
    monkeypatch.setattr(Scripted, "act", picky)

    async def story() -> list[Exchange]:
        async with running(scripted) as engine:
            busy = await held_up(engine, scripted)
            spoilt = replace(fake_observation(seed=0), instruction="spoil it")
            first, second, third = opened(engine, 3)
            tasks = [
                await asked(engine, first, 1),
                await asked(engine, second, 2, observation=spoilt),
                await asked(engine, third, 3),
            ]
            scripted.gate.set()
            await busy
            return [await task for task in tasks]

    good, bad, also_good = asyncio.run(story())
    assert [code_of(one) for one in (good, bad, also_good)] == [None, "unfit", None]
    assert len({one.batch for one in (good, bad, also_good)}) == 3, "they were not computed together in the end"
    assert {one.together for one in (good, bad, also_good)} == {1}


def test_an_unexpected_error_is_an_id_for_the_client_and_the_whole_story_for_the_log(
    scripted: Scripted, caplog: pytest.LogCaptureFixture
):
    diary = Diary()
    vars(scripted)["failure"] = RuntimeError("device /dev/secret is on fire")

    async def story() -> tuple[Exchange, Exchange]:
        async with running(scripted, diary) as engine:
            (session,) = opened(engine)
            broken = await engine.ask(session, question())
            vars(scripted)["failure"] = None
            return broken, await engine.ask(session, question())

    broken, fine = asyncio.run(story())
    assert broken.refusal is not None
    code, message = broken.refusal
    assert code == "internal"
    assert "fire" not in message
    ((_, error_id, told),) = diary.failures
    assert error_id in message
    assert "on fire" in told
    assert error_id in caplog.text
    assert "Traceback" in caplog.text
    assert fine.chunk is not None


def test_actions_that_are_no_numbers_never_leave(scripted: Scripted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("served_policies.chunk_for", lambda *_: ActionChunk(actions=np.full((2, 6), np.nan, "f4")))

    async def story() -> Exchange:
        async with running(scripted) as engine:
            return await engine.ask(opened(engine)[0], question())

    exchange = asyncio.run(story())
    assert code_of(exchange) == "internal"
    assert exchange.chunk is None


def test_thoughts_stay_in_their_session(thinker: MolmoAct2Policy):
    robot = thinker.processor.tag("toy_arm")

    async def story() -> list[Exchange]:
        async with running(thinker) as engine:
            mine, other = opened(engine, 2)
            asks = [question(n, robot=robot, embodiment="toy_arm", think=True) for n in range(2)]
            exchanges = [
                await engine.ask(one, ask) for _ in range(2) for one, ask in zip((mine, other), asks, strict=True)
            ]
            engine.reset(mine)
            return [*exchanges, await engine.ask(mine, asks[0])]

    exchanges = asyncio.run(story())
    thoughts = [exchange.chunk.depth for exchange in exchanges if exchange.chunk is not None]
    assert [thought.changed.all() for thought in thoughts if thought] == [True, True, False, False, True], exchanges
    for thought in thoughts[2:4]:
        assert thought is not None
        assert not thought.changed.any(), "the same image, and yet a cell changed: that was another robot's map"
    np.testing.assert_array_equal(thoughts[0].codes, thoughts[2].codes)  # type: ignore[union-attr]
    np.testing.assert_array_equal(thoughts[1].codes, thoughts[3].codes)  # type: ignore[union-attr]


def test_a_reset_during_an_answer_begins_with_an_empty_memory(scripted: Scripted):
    async def story() -> tuple[bool, Exchange, Exchange]:
        async with running(scripted) as engine:
            (session,) = opened(engine)
            scripted.gate.clear()
            running_one = await asked(engine, session)
            await asyncio.to_thread(scripted.begun.acquire)
            before = session.memory
            waiting = await asked(engine, session, 1)
            engine.reset(session)
            scripted.gate.set()
            return session.memory is before, await running_one, await waiting

    is_same, old, waited = asyncio.run(story())
    assert not is_same, "what the old episode remembers late would have gone to the new one"
    assert old.episode == 0
    assert code_of(waited) == "superseded"


def test_sessions_expire_when_nobody_uses_them_and_are_few():
    now, over = [0.0], []
    sessions = Sessions(cap=2, ttl_s=10, ended=over.append, clock=lambda: now[0])
    first, second = (sessions.open(client="c", dialect="d") for _ in range(2))
    with pytest.raises(WireError, match="2 sessions") as refusal:
        sessions.open(client="c", dialect="d")
    assert refusal.value.code == "busy"
    second.connections = 1
    now[0] = 9.0
    assert sessions.find(first.id) is first
    now[0] = 18.0
    assert sessions.find(first.id) is first, "it was used 9 seconds ago"
    now[0] = 29.0
    assert sessions.find(first.id) is None
    assert sessions.find(second.id) is second, "a connected session stays"
    assert over == [first.id]
    assert len({sessions.open(client="c", dialect="d").id, second.id, first.id}) == 3


def test_a_client_that_goes_takes_its_question_with_it(scripted: Scripted):
    async def story() -> int:
        async with running(scripted) as engine:
            busy = await held_up(engine, scripted)
            waiting = await asked(engine, opened(engine)[0])
            assert engine.num_waiting == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            left = engine.num_waiting
            scripted.gate.set()
            await busy
            return left

    assert asyncio.run(story()) == 0


def test_draining_finishes_what_runs_and_refuses_what_waits(scripted: Scripted):
    async def story() -> tuple[Exchange, Exchange, Exchange]:
        async with running(scripted) as engine:
            busy = await held_up(engine, scripted)
            waiting = await asked(engine, opened(engine)[0])
            engine.drain()
            refused = await waiting
            new = await engine.ask(opened(engine)[0], question())
            scripted.gate.set()
            return await busy, refused, new

    finished, refused, new = asyncio.run(story())
    assert finished.chunk is not None
    assert code_of(refused) == code_of(new) == "busy"


def test_a_watcher_that_fails_harms_nobody(scripted: Scripted):
    class Clumsy(Diary):
        def exchanged(self, _: Exchange, /) -> None:
            raise OSError("the disk is full")

    diary = Diary()

    async def story() -> Exchange:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with running(scripted, Clumsy()) as engine:
            engine.watchers.append(diary)
            return await engine.ask(opened(engine)[0], question())

    assert asyncio.run(story()).chunk is not None
    assert len(diary.exchanges) == 1


def test_only_what_the_policy_knows_is_served(tiny: MolmoAct2Policy):
    with pytest.raises(ValueError, match="Unknown embodiment"):
        Engine(tiny, embodiment="so101_tabletpo")
    assert Engine(tiny, embodiment="so101_tabletop").embodiments == ("so101_tabletop",)
