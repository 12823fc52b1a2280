"""The dashboard in a real browser, on a real server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from live_server import LiveServer, live_server, wait_until
from made_up_flights import made_up, telemetry

from molmoact2.inference import load_policy
from molmoact2.serving.dashboard import Board
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.settings import ServerSettings
from molmoact2.testing import tiny_checkpoint

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TOKEN = "a-token-of-sufficient-length"
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&'
CONTRAST = """
() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("button, h1, h2, p, dt, dd, li, figcaption span, figcaption b, select")]
    .filter((e) => e.checkVisibility() && e.textContent.trim() && !e.disabled && !e.closest(".camera"))
    .map((e) => {
      const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}`];
    });
}
"""
"""Contrast of every text with what is behind it."""


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM} to look at the page with")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory):
    return load_policy(tiny_checkpoint(tmp_path_factory.mktemp("policies") / "tiny"))


@pytest.fixture
def server(policy) -> Iterator[LiveServer]:
    with live_server(policy) as running:
        perform(running, [made_up(number, height=48, width=64) for number in range(5)])
        yield running


@pytest.fixture
def page(browser):
    opened = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    opened.set_default_timeout(15_000)
    yield opened
    opened.context.close()


def board_of(server: LiveServer) -> Board:
    return next(watcher for watcher in server.engine.watchers if isinstance(watcher, Board))


def perform(server: LiveServer, exchanges: list[Exchange]) -> None:
    """Have something happen, with the motion that belongs to it."""
    board = board_of(server)
    for exchange in exchanges:
        server.on_loop(lambda exchange=exchange: board.exchanged(exchange))
        moved = telemetry(exchange.observed_at or 0.0, notes=(f"note {exchange.number}",))
        server.on_loop(lambda moved=moved, session=exchange.session: board.moved(session, moved))


def visit(page, server: LiveServer) -> None:
    page.goto(f"http://{server.address}/")
    page.locator("#cameras img").first.wait_for()
    until(page, "document.querySelector('#cameras img').naturalWidth > 0")


def until(page, expression: str) -> None:
    """Return when it holds on the page, whose policy forbids the browser to wait for words of ours."""
    wait_until(lambda: page.evaluate(expression))


def wish(server: LiveServer, session: str = "one"):
    return server.engine.operator.wish_of(session)


def test_everything_is_shown_and_nothing_is_asked_elsewhere(page, server: LiveServer):
    complaints, hosts = [], set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    server.on_loop(lambda: board_of(server).failed("inference", "e77e", "it broke"))
    visit(page, server)
    until(page, "document.querySelectorAll('#joints canvas[aria-label]').length === 6")
    assert page.locator("#cameras figcaption").all_text_contents() == ["front", "wrist"]
    assert page.locator("#instruction").text_content() == "wave"
    assert "shoulder pan at" in page.locator("#joints canvas").first.get_attribute("aria-label")
    assert page.locator("#depth-words").text_content().endswith("of 16 cells said anew")
    assert page.locator("#mode").text_content() == "full"
    assert page.locator("#notes li").first.text_content().endswith("note 4")
    assert "e77e" in page.locator("#errors li").first.text_content()
    assert "median60ms" in page.locator("#numbers").text_content()
    assert page.locator("#model").text_content() == "tiny"
    assert (complaints, hosts - {"", server.address}) == ([], set())


def test_every_chart_is_drawn(page, server: LiveServer):
    visit(page, server)
    until(page, "document.querySelectorAll('#joints canvas[aria-label]').length === 6")
    inked = page.evaluate(
        """() => [...document.querySelectorAll("canvas")].map((canvas) => {
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return data.some((value, i) => i % 4 === 3 && value > 0);
        })"""
    )
    assert inked == [True] * 8


def test_news_arrive_while_one_looks(page, server: LiveServer):
    visit(page, server)
    before = page.locator("#cameras img").first.get_attribute("src")
    question = made_up(9, height=48, width=64).question
    told = replace(question.observation, instruction="another task")
    perform(server, [made_up(9, question=replace(question, observation=told))])
    until(page, "document.querySelector('#instruction').textContent === 'another task'")
    assert page.locator("#cameras img").first.get_attribute("src") != before


def test_buttons_reach_the_operator(page, server: LiveServer):
    visit(page, server)
    for name, command, words in (("Hold", "hold", "is held"), ("Stop", "stop", "is stopped")):
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_text(words).wait_for()
        assert wish(server).command == command
    page.get_by_role("button", name="Resume", exact=True).click()
    page.locator("#banner").wait_for(state="hidden")
    assert wish(server).command is None
    page.get_by_role("button", name="Stop all").click()
    page.get_by_text("All robots are stopped").wait_for()
    assert wish(server, "somebody else").command == "stop"
    page.get_by_role("button", name="Resume all robots").click()
    page.locator("#banner").wait_for(state="hidden")
    assert wish(server, "somebody else").command is None


def test_another_instruction_can_be_told_and_taken_back(page, server: LiveServer):
    visit(page, server)
    page.get_by_label("Another instruction").fill("pick up the cup")
    page.get_by_role("button", name="Tell it").click()
    until(page, "document.querySelector('#instruction').textContent === 'pick up the cup'")
    assert wish(server).instruction == "pick up the cup"
    page.get_by_role("button", name="Give back").click()
    until(page, "document.querySelector('#instruction').textContent === 'wave'")
    assert wish(server).instruction is None


def test_a_command_that_did_not_arrive_is_shouted(page, server: LiveServer):
    visit(page, server)
    page.route("**/dashboard/command", lambda route: route.abort())
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("alert").get_by_text("NOT DELIVERED: Stop").wait_for()


def test_hostile_words_are_words(page, server: LiveServer):
    exchange = made_up(7, session="two", client=HOSTILE)
    observation = replace(exchange.question.observation, instruction=HOSTILE)
    observation = replace(observation, images={HOSTILE: np.zeros((8, 8, 3), np.uint8)})
    hostile = replace(exchange, question=replace(exchange.question, observation=observation))
    board = board_of(server)
    server.on_loop(lambda: board.exchanged(hostile))
    server.on_loop(lambda: board.exchanged(replace(hostile, number=8, chunk=None, refusal=("late", HOSTILE))))
    server.on_loop(lambda: board.moved("two", telemetry(1.0, mode=HOSTILE, notes=(HOSTILE,))))
    server.on_loop(lambda: board.failed(HOSTILE, HOSTILE, HOSTILE))
    visit(page, server)
    assert page.locator("#instruction").text_content() == HOSTILE
    assert page.locator("#cameras figcaption").text_content() == HOSTILE
    assert HOSTILE in page.locator("#notes").text_content()
    assert HOSTILE in page.locator("#errors").text_content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 1


def test_another_session_can_be_looked_at(page, server: LiveServer):
    perform(server, [made_up(20, session="two")])
    visit(page, server)
    assert page.locator("#sessions").input_value() == "two"
    page.locator("#sessions").select_option("one")
    until(page, "document.querySelectorAll('#notes li').length === 5")
    server.on_loop(lambda: board_of(server).ended("one"))
    page.get_by_text("session is over").wait_for()


def test_the_token_is_asked_for_and_kept_in_this_tab_only(page, policy):
    with live_server(policy, settings=ServerSettings(port=0, token=TOKEN)) as server:
        perform(server, [made_up(0, height=48, width=64)])
        page.goto(f"http://{server.address}/")
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.get_by_role("button", name="Connect").click()
        page.get_by_text("That token is not right").wait_for()
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.get_by_role("button", name="Connect").click()
        page.locator("#cameras img").first.wait_for()
        page.get_by_role("button", name="Hold", exact=True).click()
        wait_until(lambda: wish(server).command == "hold")
        stored = "[JSON.stringify(localStorage), document.cookie, location.href, Object.values(sessionStorage).join()]"
        local, cookie, address, kept = page.evaluate(stored)
        assert (local, cookie, kept) == ("{}", "", TOKEN)
        assert TOKEN not in address


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440])
def test_nothing_is_cut_off_at_the_side(page, server: LiveServer, width: int):
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, server)
    until(page, "document.querySelectorAll('#joints canvas[aria-label]').length === 6")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("Hold", "Resume", "Stop", "Stop all"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 844, f"{name} is not to be seen without scrolling"
        assert min(box["width"], box["height"]) >= 44


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(page, server: LiveServer, scheme: str):
    page.emulate_media(color_scheme=scheme)
    visit(page, server)
    page.get_by_role("button", name="Hold", exact=True).click()
    page.get_by_text("is held").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(200)
    faint = [(round(contrast, 2), what) for contrast, what in page.evaluate(CONTRAST) if contrast < 4.5]
    assert not faint


def test_everything_can_be_reached_and_is_named(page, server: LiveServer):
    visit(page, server)
    tree = page.locator("body").aria_snapshot()
    assert 'textbox "Another instruction"' in tree
    assert 'combobox "Robot"' in tree
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 8)"))
    assert {"Hold", "Resume", "Stop", "Stop all", "Tell it"} <= reached
