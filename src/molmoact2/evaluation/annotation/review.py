"""A page on which a person accepts, edits or rejects new instructions. One file, which needs no network.

Decisions are kept by the browser and exported as a JSON file, which `decisions.py` applies.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from molmoact2.data.annotated_tasks import ALL_FROZEN
from molmoact2.data.reader import LeRobotDataset
from molmoact2.evaluation.annotation.asking import has_failed, reason_of
from molmoact2.evaluation.annotation.diversity import Diversity, before_and_after
from molmoact2.evaluation.annotation.storyboard import NUM_MOMENTS, jpeg, sheet, take_storyboard
from molmoact2.evaluation.ledger import Record, write_whole
from molmoact2.evaluation.report import PAGE as HOUSE
from molmoact2.evaluation.report import data_url, fact

PAGE = Path(__file__).with_name("page")
REVIEW_FILE = "review.html"
PICTURE_SIDE = 128
PICTURE_QUALITY = 75


def write_review(dataset: LeRobotDataset, records: Sequence[Record], folder: Path, *, num_episodes: int) -> Path:
    """Write the page of at most `num_episodes` episodes that wait for a decision, and return its path."""
    shown = choose(records, num_episodes)
    entries = "".join(entry(dataset, record) for record in shown)
    before, after = before_and_after(records)
    page = Template((PAGE / "review.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"Instructions of {dataset.root.resolve().name}"),
        headline=escape(f"New instructions of {dataset.root.resolve().name}"),
        lead=lead(records, len(shown)),
        diversity=diversity_section(before, after),
        entries=entries or '<p class="hint">Nothing waits for a decision.</p>',
        about=escape(json.dumps({"dataset": dataset.root.resolve().name, "keys": [record["key"] for record in shown]})),
        style=(HOUSE / "style.css").read_text(encoding="utf-8") + (PAGE / "review.css").read_text(encoding="utf-8"),
        script=(PAGE / "review.js").read_text(encoding="utf-8"),
    )
    path = folder / REVIEW_FILE
    write_whole(path, page)
    return path


def choose(records: Sequence[Record], count: int) -> list[Record]:
    """Undecided records by episode: all that failed, then others at equal distances, `count` at most."""
    waiting = [record for record in records if record["annotation"] != ALL_FROZEN and "review" not in record]
    waiting.sort(key=lambda record: (not has_failed(record), record["episode_index"]))
    num_failed = min(count, sum(map(has_failed, waiting)))
    others = waiting[num_failed:]
    places = np.unique(np.linspace(0, len(others) - 1, min(count - num_failed, len(others))).round().astype(int))
    return waiting[:num_failed] + [others[place] for place in places]


def lead(records: Sequence[Record], num_shown: int) -> str:
    """What there is, in a paragraph."""
    num_failed = sum(map(has_failed, records))
    num_frozen = sum(record["annotation"] == ALL_FROZEN for record in records)
    return (
        f"<b>{len(records) - num_failed - num_frozen:,} of {len(records):,}</b> episodes have a new instruction; "
        f"{num_failed:,} have no usable answer and {num_frozen:,} show nothing that moves. Below are {num_shown:,} to "
        "decide upon, those without an answer first. Keys: <kbd>a</kbd> accept, <kbd>e</kbd> edit, "
        "<kbd>r</kbd> reject, <kbd>j</kbd> and <kbd>k</kbd> next and previous."
    )


def diversity_section(before: Diversity, after: Diversity) -> str:
    """Shares and lengths, recorded and new."""
    facts = (
        fact(f"{100 * before.distinct_share:.3g}", "%", "of the recorded instructions are distinct"),
        fact(f"{100 * after.distinct_share:.3g}", "%", "of the new ones"),
        fact(f"{before.mean_words:.1f}", "words", "in a recorded one, on average"),
        fact(f"{after.mean_words:.1f}", "words", "in a new one"),
    )
    highest = max(1, int(before.histogram.max()), int(after.histogram.max()))
    columns = "".join(
        f'<div title="{words} words: {old} recorded, {new} new"><i style="height:{100 * old / highest:.1f}%"></i>'
        f'<i class="new" style="height:{100 * new / highest:.1f}%"></i>'
        f"<span>{words if words % 5 == 0 else ''}</span></div>"
        for words, (old, new) in enumerate(zip(before.histogram.tolist(), after.histogram.tolist(), strict=True))
    )
    longest = len(before.histogram) - 1
    return f"""<section class="tempo"><div class="card facts">{"".join(facts)}</div>
<div class="card"><h3>Words per instruction</h3><div class="lengths number" role="img"
aria-label="how many instructions have how many words, recorded and new">{columns}</div>
<p class="hint">grey recorded, coloured new; the last column is {longest} words and more</p></div></section>"""


def entry(dataset: LeRobotDataset, record: Record) -> str:
    """One episode: its moments, the recorded instruction, the new one, and what can be decided."""
    board = take_storyboard(dataset, record["episode_index"], image_side=PICTURE_SIDE)
    strips = "".join(
        f'<figure><img alt="{len(images)} moments" src="{data_url("image/jpeg", strip(images))}">'
        f"<figcaption>{escape(camera)}</figcaption></figure>"
        for camera, images in board.views.items()
    )
    still = f" · frozen: {escape(', '.join(board.frozen))}" if board.frozen else ""
    failed = f'<span class="pill">{escape(reason_of(record))}</span>' if has_failed(record) else ""
    return f"""<article class="card entry" tabindex="-1" data-key="{record["key"]}"
data-episode="{record["episode_index"]}">
<div class="strips">{strips}</div>
<div class="row"><p class="hint number">Episode {record["episode_index"]} · about {record["num_words"]} words asked \
for{still}</p>{failed}</div>
<p class="old">“{escape(record["task"])}”</p>
<textarea rows="2" readonly aria-label="new instruction"
placeholder="{escape(last_words(record))}">{escape(record["annotation"] or "")}</textarea>
<div class="choices"><button data-decision="accept">Accept</button><button data-decision="edit">Edit</button>\
<button data-decision="reject">Reject</button><span class="hint problem"></span></div></article>
"""


def last_words(record: Record) -> str:
    """What a model said last about an episode, for whoever writes an instruction in its place."""
    words = "".join(attempt["answer"] for attempt in record["attempts"][-1:]) or "no answer"
    return words.encode("utf-8", "replace").decode()


def strip(images: np.ndarray) -> bytes:
    """The moments side by side, as a JPEG file."""
    return jpeg(sheet(images, columns=NUM_MOMENTS), PICTURE_QUALITY)
