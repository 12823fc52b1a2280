"""A run as one HTML file: how often it succeeded and how sure that is, how fast it plans, and films to look at.

The file holds everything it shows, so it can be opened without a network and sent to somebody. It is written from what
`run_benchmark` left in the run's directory, at any time, also while the run goes on.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.evaluation.benchmark import FILMS_DIRECTORY
from molmoact2.evaluation.charts import interval_bar, joint_chart, value_range
from molmoact2.evaluation.film import SHEET_COLUMNS, THOUGHT, Footage, read_footage
from molmoact2.evaluation.ledger import EPISODES_FILE, Record, read_protocol, read_records, write_whole
from molmoact2.evaluation.summary import Summary, Tempo, measure_tempo, summarise, summarise_tasks

PAGE = Path(__file__).with_name("page")
REPORT_FILE = "report.html"
STAGE_COLOURS = (*(f"var(--stage-{number})" for number in range(1, 6)), "#db2777")
"""Of the stages of a plan in order; a sixth one is there where a policy thinks."""
FILM_HINT = """<p class="hint">The charts follow the film. Thick is the plan that is being executed, of which only the
first part is used before the policy looks again; the small pictures are all that it saw when it made that plan.</p>"""
THOUGHT_HINT = """<p class="hint">Beside them is the depth map that it thought of, near bright and far dark. Outlined
are the cells that it said anew, whose number stands below, with the mean distance from the true depth where that is
known; the other cells it remembered. The bars are the gates, one per layer of the action expert: how far each lets the
map through.</p>"""


def write_report(run: Path) -> Path:
    """Write `run`/report.html and return its path; ValueError when `run` holds no finished episode."""
    protocol, records = read_protocol(run), read_records(run / EPISODES_FILE)
    if not records:
        raise ValueError(f"{run} has no finished episode to report on. Run `molmoact2 evaluate` with it first.")
    total = summarise(records)
    page = Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{total.rate:.0%} · {policy_name(protocol)} on {protocol['environment']}"),
        headline=escape(f"{policy_name(protocol)} on {protocol['environment']}"),
        lead=lead(total, records),
        results=results_section(total, records),
        tempo=tempo_section(measure_tempo(records), records),
        episodes=episodes_section(run / FILMS_DIRECTORY, protocol, records),
        method=method_section(protocol, records),
        style=(PAGE / "style.css").read_text(encoding="utf-8"),
        script=(PAGE / "script.js").read_text(encoding="utf-8"),
    )
    path = run / REPORT_FILE
    write_whole(path, page)
    return path


def policy_name(protocol: Mapping[str, Any]) -> str:
    """What people call the policy: the last part of its path or hub id."""
    return str(protocol["policy"]).rstrip("/").rpartition("/")[2]


def lead(total: Summary, records: Sequence[Record]) -> str:
    """The result in a sentence."""
    num_tasks = len(summarise_tasks(records))
    tasks = "1 task" if num_tasks == 1 else f"{num_tasks} tasks"
    return (
        f"It did what it was told in <b>{total.num_successes} of {total.num_episodes}</b> episodes of {tasks}. "
        "Every episode is a scene it was not trained on, and success is judged by the simulator's true state."
    )


def results_section(total: Summary, records: Sequence[Record]) -> str:
    """The headline number, and every task with its interval."""
    low, high = total.interval
    examples = {record["task"]: record["instruction"] for record in reversed(records)}
    rows = "".join(task_row(task, summary, examples[task]) for task, summary in summarise_tasks(records).items())
    return f"""<section class="hero">
<div class="card headline"><div class="big number">{100 * total.rate:.0f}<small>%</small></div>
<p class="count">success<br><span class="number">95 % interval {100 * low:.0f} to {percent(high)}</span></p></div>
<div class="card tasks">{rows}</div>
</section>
<p class="hint" style="margin-top:12px">Dots are observed rates; bands are 95 % Wilson intervals, the true rates that
so many episodes do not contradict.</p>"""


def task_row(task: str, summary: Summary, instruction: str) -> str:
    """One task: its rate on its interval, and how it failed."""
    failures = ", ".join(f"{number} {escape(reason)}" for reason, number in summary.failures.items())
    low, high = summary.interval
    return f"""<div class="task"><h3>{escape(task)}</h3>{interval_bar(summary.rate, summary.interval)}
<div class="figures number"><b>{summary.num_successes} / {summary.num_episodes}</b>
<span class="interval-words">{100 * low:.0f}-{percent(high)}</span></div>
<p class="words">“{escape(instruction)}” · wrong object {100 * summary.wrong_object_rate:.3g} %\
{f" · failed: {failures}" if failures else ""}</p></div>"""


def tempo_section(tempo: Tempo, records: Sequence[Record]) -> str:
    """Time per plan by stage, and how often the policy looks."""
    seconds = float(np.median([record["steps"] / record["control_hz"] for record in records]))
    slow = milliseconds(tempo.plan_seconds_p95)
    actions = "action" if tempo.num_action_steps == 1 else f"{tempo.num_action_steps} actions"
    facts = (
        fact(milliseconds(tempo.plan_seconds), "ms", f"median plan; 95 % within {slow} ms"),
        fact(f"{tempo.replans_per_second:.1f}", "Hz", f"re-planning: a new look after every {actions}"),
        fact(f"{tempo.amortised_actions_per_second:,.0f}", "Hz", "actions per second of planning (amortised)"),
        fact(f"{seconds:.1f}", "s", "of robot time per episode, median"),
    )
    return f"""<h2>How it keeps time</h2>
<p class="hint">The robot takes {tempo.control_hz:g} actions per second. The simulator waits while the policy plans; an
arm that also waited would re-plan {tempo.blocking_replans_per_second:.1f} times per second.</p>
<section class="tempo"><div class="card">{stage_bar(tempo)}</div>
<div class="card facts">{"".join(facts)}</div></section>"""


def fact(value: str, unit: str, words: str) -> str:
    """A number and what it is."""
    return f'<div class="fact number"><b>{value}<small>{unit}</small></b><span>{escape(words)}</span></div>'


def stage_bar(tempo: Tempo) -> str:
    """The stages of a plan as parts of one bar, with their times."""
    rest = tempo.plan_seconds - sum(tempo.stage_seconds.values())
    stages = {**tempo.stage_seconds, "everything else": max(0.0, rest)} if tempo.stage_seconds else {"plan": rest}
    named = [f"--stage:{STAGE_COLOURS[index % len(STAGE_COLOURS)]}" for index in range(len(stages) - 1)]
    colours = [*named, "--stage:var(--stage-6)"]
    bar = "".join(
        f'<span style="{colour};width:{100 * seconds / sum(stages.values()):.2f}%"></span>'
        for colour, seconds in zip(colours, stages.values(), strict=True)
    )
    legend = "".join(
        f'<li style="{colour}"><i></i>{escape(stage)}<span class="number">{milliseconds(seconds)} ms</span></li>'
        for colour, (stage, seconds) in zip(colours, stages.items(), strict=True)
    )
    return f'<h3>Where a plan\'s time goes</h3><div class="stages">{bar}</div><ul class="legend">{legend}</ul>'


def episodes_section(films: Path, protocol: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The filmed episodes as cards, and all episodes as a table."""
    filmed = [record for record in records if record["film"]]
    footages = [read_footage(films / record["film"]) for record in filmed]
    cards = "".join(episode_card(*pair, protocol) for pair in zip(filmed, footages, strict=True))
    rows = "".join(
        f'<tr><td>{escape(r["task"])}</td><td class="number">{r["seed"]}</td><td>{escape(r["instruction"])}</td>'
        f'<td>{verdict(r)}</td><td class="number right">{r["steps"] / r["control_hz"]:.1f} s</td></tr>'
        for r in records
    )
    return f"""<h2>Episodes</h2>
{FILM_HINT if filmed else ""}{THOUGHT_HINT * any(THOUGHT in footage.sheets for footage in footages)}{cards}
<details><summary>All {len(records)} episodes</summary><div class="scroll"><table>
<tr><th>task</th><th>seed</th><th>instruction</th><th>outcome</th><th class="right">robot time</th></tr>
{rows}</table></div></details>"""


def episode_card(record: Record, footage: Footage, protocol: Mapping[str, Any]) -> str:
    """One filmed episode: the film, what the policy saw, and each joint as planned, commanded and measured."""
    video = data_url("video/mp4", footage.video)
    poster = data_url("image/jpeg", footage.poster)
    good = "good" if record["success"] else ""
    views = "".join(camera_view(name, sheet, len(footage.steps)) for name, sheet in footage.sheets.items())
    steps = json.dumps(footage.steps.tolist())
    return f"""<article class="card episode" data-hz="{record["control_hz"]}" data-steps="{steps}">
<div class="film"><video src="{video}" poster="{poster}" controls muted loop playsinline preload="metadata"></video>
<div class="caption"><div class="row"><h3>“{escape(record["instruction"])}”</h3>
<span class="pill {good}">{verdict(record)}</span></div>
<p class="hint number">{escape(record["task"])}, seed {record["seed"]} · {record["steps"]} steps,
{record["steps"] / record["control_hz"]:.1f} s · {record["plans"]} plans of {footage.chunks.shape[1]} actions</p>
</div></div>
<div class="mind"><div class="views">{views}<div class="key"><span class="planned"><i></i>planned</span>
<span><i></i>commanded</span><span class="measured"><i></i>measured</span></div></div>
<div class="joints">{joint_charts(footage, protocol["embodiment"])}</div></div></article>"""


def joint_charts(footage: Footage, tag: str) -> str:
    """A chart per action dimension, named and with its unit."""
    embodiment = EMBODIMENTS[tag]
    same = embodiment.state_names == embodiment.action_names
    charts = []
    for index, (name, unit) in enumerate(zip(embodiment.action_names, embodiment.action_units, strict=True)):
        chart = joint_chart(
            steps=footage.steps.tolist(),
            planned=footage.chunks[:, :, index],
            executed=footage.executed[:, index],
            measured=footage.measured[:, index] if same else None,
        )
        low, high = value_range(footage.executed[:, index])
        span = f"{low:.0f} to {high:.0f} {UNIT_SIGNS.get(unit, unit)}"
        words = f"<span>{escape(name.replace('_', ' '))}</span><span class='number'>{escape(span)}</span>"
        charts.append(f"<figure><figcaption>{words}</figcaption>{chart}</figure>")
    return "".join(charts)


UNIT_SIGNS = {"deg": "°", "percent": "%", "fraction": "0-1"}


def camera_view(name: str, sheet: bytes, num_plans: int) -> str:
    """The images of one camera, of which the page shows the one of the current plan."""
    width, height = PillowImage.open(io.BytesIO(sheet)).size
    num_rows = -(-num_plans // SHEET_COLUMNS)
    aspect = (width / SHEET_COLUMNS) / (height / num_rows)
    seen = escape({THOUGHT: "what it thought of depth"}.get(name, f"what the {name} camera saw"))
    style = f"--columns:{SHEET_COLUMNS};--aspect:{aspect:.4f};background-image:url({data_url('image/jpeg', sheet)})"
    return (
        f'<figure><div class="view" role="img" aria-label="{seen}" '
        f'data-columns="{SHEET_COLUMNS}" data-rows="{num_rows}" style="{style}"></div>'
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )


def method_section(protocol: Mapping[str, Any], records: Sequence[Record]) -> str:
    """How it was measured, for whoever wants to measure it again."""
    machine = records[-1]["machine"]
    seeds = [record["seed"] for record in records]
    rows = {
        **{key.replace("_", " "): str(value) for key, value in protocol.items()},
        "seeds": f"{min(seeds)} to {max(seeds)}, the same for every policy; recordings begin at 0",
        "processor": machine["processor"],
        "versions": ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
    }
    entries = "".join(f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>" for key, value in rows.items())
    return f'<h2>How it was measured</h2><dl class="how">{entries}</dl>'


def verdict(record: Record) -> str:
    """The outcome in words."""
    return "success" if record["success"] else escape(record["failure"])


def percent(rate: float) -> str:
    """A rate between 0 and 1 as a whole percentage."""
    return f"{100 * rate:.0f} %"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, three digits where there are any."""
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:,.0f}"


def data_url(media_type: str, content: bytes) -> str:
    """The content itself, as an address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
