"""The review page, in a browser where there is one, and what becomes of the decisions."""

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from fake_endpoint import completion, look, pictures_of

from molmoact2.data.annotated_tasks import ALL_FROZEN, read_annotations
from molmoact2.evaluation.annotation.asking import Asking, Manner
from molmoact2.evaluation.annotation.decisions import apply_review
from molmoact2.evaluation.annotation.place import folder_beside
from molmoact2.evaluation.annotation.review import choose, write_review
from molmoact2.evaluation.annotation.run import run_annotation
from molmoact2.evaluation.ledger import EPISODES_FILE, read_records

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def run(dataset, server):
    """`run()` annotates: episodes 0, 2 and 4 get an instruction, 1 fails, 3 is frozen."""

    def annotate(**manner):
        asking = Asking(annotator=server.endpoint(), manner=Manner(**manner))
        return run_annotation(dataset, asking, folder_beside(dataset), episodes=range(5), num_workers=1)

    def answer(request):
        return completion("<b>no</b>") if b"green" in look(request)[2] else look(request)

    server.otherwise = answer
    return annotate


@pytest.fixture
def page(dataset, run):
    records = run()
    return write_review(dataset, records, folder_beside(dataset), num_episodes=10)


def decide(dataset, tmp_path, *decisions, **changes):
    """Write decisions (episode, decision, instruction) as the page saves them, and apply them."""
    keys = {r["episode_index"]: r["key"] for r in read_records(folder_beside(dataset) / EPISODES_FILE)}
    entries = [
        {"key": keys[episode], "episode_index": episode, "decision": name}
        | ({"instruction": text} if text else {})
        | changes
        for episode, name, text in decisions
    ]
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"dataset": "toys", "decisions": entries}))
    return apply_review(dataset, folder_beside(dataset), path)


class Outline(HTMLParser):
    """Tags of a page, and every address in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "poster", "action", "data")]


def test_the_page_is_one_file(page):
    text = page.read_text()
    outline = Outline(text)
    assert outline.tags.count("article") == 4
    assert outline.tags.count("img") == 4
    assert all(address.startswith("data:image/jpeg;base64,") for address in outline.addresses)
    without_data = re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.findall(r"https?://|@import|<link|\bsrc=\"[^\"]", without_data)


def test_the_page_shows_what_is_to_decide(page):
    text = page.read_text()
    assert [int(number) for number in re.findall(r'data-episode="(\d+)"', text)] == [1, 0, 2, 4], "failed ones first"
    assert "<b>3 of 5</b> episodes" in text
    assert "1 have no usable answer and 1 show nothing" in text
    assert "it has special tokens or tags" in text
    assert ">Push the red block to the left</textarea>" in text
    assert "“move the block”" in text
    assert "frozen: wrist" in text
    assert "33.3<small>%</small></b><span>of the recorded" in text
    assert "100<small>%</small></b><span>of the new" in text


def test_words_are_escaped(dataset, server):
    evil = 'Say "</textarea><script>alert(1)</script>'
    asking = Asking(annotator=server.endpoint(), manner=Manner())
    records = run_annotation(dataset, asking, folder_beside(dataset), episodes=[0], num_workers=1)
    shown = [{**records[0], "annotation": evil, "task": evil}]
    text = write_review(dataset, shown, folder_beside(dataset), num_episodes=1).read_text()
    assert text.count("<script>") == 1
    assert html.escape(evil) in text


def test_a_failed_answer_is_shown_whatever_it_holds(dataset, server):
    server.otherwise = lambda request: look(request) if server.requests[1:] else completion("Push \ud800 <away>")
    asking = Asking(annotator=server.endpoint(), manner=Manner(num_attempts=1))
    records = run_annotation(dataset, asking, folder_beside(dataset), episodes=[0, 1], num_workers=1)
    text = write_review(dataset, records, folder_beside(dataset), num_episodes=9).read_text()
    assert 'placeholder="Push ? &lt;away&gt;"' in text


def test_which_episodes_are_shown():
    def record(index, annotation="wave", **more):
        return {"episode_index": index, "annotation": annotation, **more}

    records = [record(i) for i in range(100)]
    records += [record(100, None), record(101, ALL_FROZEN), record(102, None, review="reject")]
    assert [r["episode_index"] for r in choose(records, 4)] == [100, 0, 50, 99]
    assert len(choose(records, 500)) == 101
    assert choose(records, 0) == []
    assert [r["episode_index"] for r in choose(records, 1)] == [100]


@pytest.mark.usefixtures("page")
def test_decisions_become_annotations(dataset, tmp_path, run, server):
    counts = decide(dataset, tmp_path, (0, "accept", ""), (1, "edit", "wave at the green block"), (2, "reject", ""))
    assert counts == {"accept": 1, "edit": 1, "reject": 1}
    expected = {
        0: "Push the red block to the left",
        1: "wave at the green block",
        3: ALL_FROZEN,
        4: "Push the purple block to the left",
    }
    assert read_annotations(dataset.root) == expected
    num_requests = len(server.requests)
    records = run()
    assert read_annotations(dataset.root) == expected, "a further run keeps what people decided"
    assert len(server.requests) == num_requests, "and asks nothing"
    assert [r["episode_index"] for r in choose(records, 10)] == [4]


@pytest.mark.usefixtures("page")
def test_decisions_can_be_applied_again_and_changed(dataset, tmp_path):
    for _ in range(2):
        decide(dataset, tmp_path, (0, "reject", ""), (2, "edit", "wave"))
        assert set(read_annotations(dataset.root)) == {2, 3, 4}
    decide(dataset, tmp_path, (0, "accept", ""), (2, "accept", ""))
    annotations = read_annotations(dataset.root)
    assert annotations[0] == "Push the red block to the left"
    assert annotations[2] == "Push the blue block to the left"


def test_decisions_about_an_earlier_run_are_refused(dataset, page, tmp_path, run, server):
    saved = page.read_text()
    key = re.search(r'data-key="(\w+)"\s+data-episode="0"', saved).group(1)
    server.otherwise = lambda request: completion(f"Slide the block of {len(pictures_of(request))} pictures")
    run(seed=5)
    with pytest.raises(ValueError, match=r"episodes \[0\] have other instructions by now"):
        decide(dataset, tmp_path, (0, "reject", ""), key=key)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not valid JSON"),
        ("[]", "not an object"),
        ("{}", "no list of decisions"),
        ('{"decisions": [5]}', "no list of decisions"),
        ('{"decisions": [{"key": "abc", "decision": "accept"}]}', "not in the ledger"),
        ('{"decisions": [{}]}', "not in the ledger"),
    ],
)
@pytest.mark.usefixtures("page")
def test_malformed_decisions_are_refused(dataset, tmp_path, content, problem):
    path = tmp_path / "decisions.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"decisions.json: .*{problem}"):
        apply_review(dataset, folder_beside(dataset), path)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ((1, "accept", ""), "the instruction of episode 1 cannot be used: it is empty"),
        ((1, "edit", ""), "it is empty"),
        ((1, "edit", "wave<|im_end|>"), "special tokens"),
        ((1, "keep", ""), "'keep', not one of accept, edit, reject"),
        ((0, "accept", ""), "decides twice"),
    ],
)
@pytest.mark.usefixtures("page")
def test_one_wrong_decision_stops_all(dataset, tmp_path, wrong, problem):
    before, lines = read_annotations(dataset.root), read_records(folder_beside(dataset) / EPISODES_FILE)
    with pytest.raises(ValueError, match=problem):
        decide(dataset, tmp_path, (0, "reject", ""), wrong)
    assert read_annotations(dataset.root) == before
    assert read_records(folder_beside(dataset) / EPISODES_FILE) == lines


@pytest.mark.usefixtures("page")
def test_decisions_about_another_episode_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="episode 0 is called 4"):
        decide(dataset, tmp_path, (0, "reject", ""), episode_index=4)


def test_without_a_run_there_is_nothing_to_review(dataset, tmp_path):
    (tmp_path / "decisions.json").write_text('{"decisions": []}')
    with pytest.raises(ValueError, match=r"holds no annotations. Run `molmoact2 data annotate` first"):
        apply_review(dataset, folder_beside(dataset), tmp_path / "decisions.json")
    assert not folder_beside(dataset).exists()


CLICKS = """
const press = (episode, decision) =>
  document.querySelector(`[data-episode="${episode}"] button[data-decision="${decision}"]`).click();
const write = (episode, words) => {
  const area = document.querySelector(`[data-episode="${episode}"] textarea`);
  area.value = words;
  area.dispatchEvent(new Event("input"));
};
press(0, "reject"); press(0, "reject"); press(0, "accept");
press(1, "edit"); write(1, "  wave at   the block ");
press(2, "edit"); write(2, "nonsense"); press(2, "reject");
press(4, "edit"); write(4, " ");
const count = document.querySelector(".count").textContent;
document.body.outerHTML = `<pre id="saved">${btoa(saved())}</pre><p>${count}</p>`;
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here to run the page in")
def test_the_page_saves_what_is_applied(dataset, page, tmp_path):
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", f"<script>{CLICKS}</script></body>"))
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"--user-data-dir={tmp_path}/profile",
    ]
    result = subprocess.run([*command, clicked.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    saved = json.loads(base64.b64decode(re.search(r'id="saved">([^<]+)<', result.stdout).group(1)))
    assert "3 of 4 decided" in result.stdout
    assert saved["dataset"] == "toys"
    found = {one["episode_index"]: (one["decision"], one.get("instruction")) for one in saved["decisions"]}
    assert found == {0: ("accept", None), 1: ("edit", "wave at the block"), 2: ("reject", None)}
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(saved))
    assert apply_review(dataset, folder_beside(dataset), path) == {"accept": 1, "edit": 1, "reject": 1}
    assert read_annotations(dataset.root)[1] == "wave at the block"
