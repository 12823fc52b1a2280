"""What a person decided on the review page, applied to the dataset and noted in the ledger."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molmoact2.data.annotated_tasks import read_annotations
from molmoact2.data.errors import expect, require
from molmoact2.data.files import read_json
from molmoact2.data.reader import LeRobotDataset
from molmoact2.evaluation.annotation.answers import complaint_about_wording
from molmoact2.evaluation.annotation.place import open_place, store
from molmoact2.evaluation.ledger import EPISODES_FILE, Record

DECISIONS = ("accept", "edit", "reject")
SAVE_AGAIN = "Save the decisions again from the review page of this dataset."


def apply_review(dataset: LeRobotDataset, folder: Path, path: Path) -> Counter[str]:
    """Apply the decisions in `path` and return how many there were of each; all of them, or none if one is wrong.

    An edited instruction takes the place of the model's; a rejected one is taken out, and its episode is not asked
    about again under the same settings. Applying a file twice is the same as once.
    """
    require((folder / EPISODES_FILE).exists(), f"{folder} holds no annotations. Run `molmoact2 data annotate` first.")
    with open_place(dataset, folder) as ledger:
        reviewed = read_decisions(path, ledger.records)
        check_current(dataset, reviewed, [*ledger.records, *reviewed], path)
        ledger.keep([*ledger.records, *reviewed])
        store(dataset, reviewed)
    return Counter(record["review"] for record in reviewed)


def check_current(dataset: LeRobotDataset, reviewed: Sequence[Record], records: Sequence[Record], path: Path) -> None:
    """Refuse decisions about instructions that a later run has replaced in the dataset."""
    texts: defaultdict[str, set[str | None]] = defaultdict(set)
    for record in records:
        texts[record["key"]].add(record["annotation"])
    current = read_annotations(dataset.root)
    stale = [r["episode_index"] for r in reviewed if current.get(r["episode_index"]) not in texts[r["key"]]]
    problem = f"the episodes {stale[:10]} have other instructions by now than the page showed"
    expect(not stale, path, problem, "Review the page of the last run.")


def read_decisions(path: Path, records: Sequence[Record]) -> list[Record]:
    """The decisions as records of the ledger, each made from the model's one that it is about."""
    decisions = read_json(path).get("decisions")
    is_list = isinstance(decisions, list) and all(isinstance(one, dict) for one in decisions)
    expect(is_list, path, "it has no list of decisions", SAVE_AGAIN)
    latest = {record["key"]: record for record in records if "review" not in record}
    keys = [str(one.get("key")) for one in decisions or []]
    unknown = sorted(set(keys) - latest.keys())
    expect(not unknown, path, f"it decides on what is not in the ledger: {unknown[:3]}", SAVE_AGAIN)
    expect(len(set(keys)) == len(keys), path, "it decides twice on the same episode", SAVE_AGAIN)
    return [decided(latest[key], decision, path) for key, decision in zip(keys, decisions or [], strict=True)]


def decided(record: Record, decision: dict[str, Any], path: Path) -> Record:
    """The record with what was decided about it."""
    name, about = decision.get("decision"), f"episode {record['episode_index']}"
    expect(name in DECISIONS, path, f"{about} has the decision {name!r}, not one of {', '.join(DECISIONS)}", SAVE_AGAIN)
    same = decision.get("episode_index") == record["episode_index"]
    expect(same, path, f"{about} is called {decision.get('episode_index')!r}", SAVE_AGAIN)
    wording = {"accept": record["annotation"], "edit": decision.get("instruction"), "reject": None}[str(name)]
    needed = name != "reject"
    text = wording if isinstance(wording, str) else ""
    complaint = complaint_about_wording(text)
    require(not (needed and complaint), f"{path}: the instruction of {about} cannot be used: {complaint}. Edit it.")
    return {**record, "annotation": text.strip() if needed else None, "review": name}
