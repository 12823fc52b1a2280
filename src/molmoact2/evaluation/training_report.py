"""What came out of a training: one HTML page, and a JSON file beside it with all numbers.

The trainer calls `write_training_report` at the end of a fine-tuning; `molmoact2 report` calls it at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from molmoact2.data import LeRobotDataset
from molmoact2.data.errors import require
from molmoact2.data.files import write_json
from molmoact2.evaluation.examination import Examination, Options, ask_checkpoint, examine
from molmoact2.evaluation.ledger import read_records, write_whole
from molmoact2.evaluation.training_findings import Finding, find
from molmoact2.evaluation.training_page import Curves, training_page
from molmoact2.inference import MolmoAct2Policy

METRICS_FILE = "metrics.jsonl"
DEFAULTS = Options()


def write_training_report(
    policy: MolmoAct2Policy,
    dataset: LeRobotDataset,
    *,
    output: Path,
    held_out_episodes: Sequence[int],
    train_episodes: Sequence[int],
    train_dataset: LeRobotDataset | None = None,
    run_folder: Path | None = None,
    seed: int = 0,
    options: Options = DEFAULTS,
) -> list[Finding]:
    """Write the page `output` and the JSON file of the same name beside it; return what they say in sentences.

    Args:
        policy: the trained checkpoint.
        dataset: has the held-out episodes.
        output: the page, `*.html`.
        held_out_episodes: of `dataset`; the policy must not have seen them.
        train_episodes: of `train_dataset`; what the nearest state is looked for in.
        train_dataset: `dataset` itself, unless it is given.
        run_folder: with the `metrics.jsonl` of the training, whose curves are drawn.
        seed: of the frames and of the noise.
        options: how the policy is asked.

    Raises ValueError, before the policy is asked, for episodes that are not there or on both sides, an embodiment that
    the policy does not know or the data are not of, and a run folder without metrics.
    """
    require(output.suffix == ".html", f"The report is a page: its name must end in .html, got {output}.")
    curves: Curves = {} if run_folder is None else read_curves(run_folder)
    tag = policy.processor.tag(options.embodiment)
    training = train_dataset or dataset
    examination = examine(
        ask_checkpoint(policy, tag, options.mode, seed),
        tag,
        dataset,
        held_out_episodes=held_out_episodes,
        train_episodes=train_episodes,
        train_dataset=training,
        seed=seed,
        options=options,
    )
    findings = find(examination)
    num_frames = len(examination.target.rows)
    method = {
        "held-out data": f"{num_frames} frames of {examination.num_episodes} episodes of {dataset.root}",
        "seed": str(seed),
        "left out": f"{examination.num_unanswered} frames at which the policy finished no action",
        "training data": f"{examination.num_train_episodes} episodes of {training.root}",
        "embodiment": tag.tag,
        "mode": options.mode,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output.with_suffix(".json"), document(examination, findings, method))
    write_whole(output, training_page(examination, findings, curves, method))
    return findings


def read_curves(run_folder: Path) -> Curves:
    """Every number that a run logged: name -> steps [n] and values [n], in the order of the log.

    ValueError where the folder has no `metrics.jsonl`, or a complete line of it is not JSON with a step.
    """
    path = run_folder / METRICS_FILE
    require(path.is_file(), f"{run_folder} has no {METRICS_FILE}. Give the folder of a training run.")
    records = read_records(path)
    require(all("step" in record for record in records), f"{path} has lines without a step: it is no training log.")
    points: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name in [name for name, value in record.items() if type(value) in (int, float) and name != "step"]:
            points.setdefault(name, []).append((record["step"], record[name]))
    return {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in points.items()}


def document(examination: Examination, findings: Sequence[Finding], method: Mapping[str, str]) -> dict[str, Any]:
    """All numbers as JSON; null where there is none. Relative numbers are shares, not percentages."""
    effects = {
        name: {
            "subject": effect.variation.subject,
            "change": effect.change._asdict(),
            "error_ratio": effect.ratio._asdict(),
            "answer": effect.answer,
        }
        for name, effect in examination.effects.items()
    }
    return jsonable(
        {
            "method": method,
            "findings": {one.subject: {"answer": one.answer, "sentence": one.sentence} for one in findings},
            "num_frames": len(examination.target.rows),
            "num_unanswered": examination.num_unanswered,
            "joints": examination.joints,
            "units": examination.units,
            "state_names": examination.state_names,
            "span": examination.target.span,
            "errors": {name: asdict(errors) for name, errors in examination.errors.items()},
            "error_over_baseline": {name: ratio._asdict() for name, ratio in examination.compared.items()},
            "advantage_kept_blind": examination.kept_blind._asdict(),
            "effects": effects,
            "saturation": {name: asdict(part) for name, part in examination.saturation.items()},
        }
    )


def jsonable(value: Any) -> Any:
    """The same with arrays as lists, and null in place of numbers that are not finite."""
    match value:
        case Mapping():
            return {name: jsonable(one) for name, one in value.items()}
        case np.ndarray():
            return jsonable(value.tolist())
        case list() | tuple():
            return [jsonable(one) for one in value]
        case float() if not np.isfinite(value):
            return None
    return value
