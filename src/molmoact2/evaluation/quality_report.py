"""The check of a dataset as one HTML file: grade and findings, ranges against limits, episodes, and what cameras saw.

The file holds everything it shows, so it can be opened without a network and sent to somebody.
"""

import io
from collections import Counter
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from molmoact2.data.files import written_atomically
from molmoact2.data.quality.findings import Finding, Report
from molmoact2.data.quality.material import Material, Sample, Vector
from molmoact2.evaluation.report import PAGE, UNIT_SIGNS, data_url, fact

GRADES = {
    "A": "Nothing stands in the way of training on it.",
    "B": "Fit to train on; one or two things are worth a look.",
    "C": "Several things cost quality. Look at them before training.",
    "D": "One thing is wrong. Correct it, or leave out what it touches, before training.",
    "F": "Not fit to train on as it is.",
}
SHOWN_PLACES = 12
SHOWN_INSTRUCTIONS = 10
SHOWN_EPISODES = 10
LENGTH_BINS = 36
THUMBNAIL_HEIGHT = 208
MANY_CLIPPED = 0.03
"""Clipping takes 2 % of a continuous dimension by its definition."""


def write_quality_page(report: Report, path: Path) -> None:
    """Write the page for a report, atomically."""
    name = Path(report.source).name or report.source
    material = report.material
    style = "".join((PAGE / part).read_text(encoding="utf-8") for part in ("style.css", "quality.css"))
    page = Template((PAGE / "quality.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{report.grade} · {name}"),
        headline=escape(name),
        lead=escape(GRADES[report.grade]),
        verdict=verdict_section(report),
        findings=findings_section(report),
        dimensions=dimensions_section(material) if material else "",
        episodes=episodes_section(report, material) if material else "",
        pictures=pictures_section(material) if material else "",
        method=method_section(report),
        style=style,
    )
    with written_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def verdict_section(report: Report) -> str:
    """The grade, and how much was looked at."""
    facts = report.facts
    shown = {
        "episodes": f"{facts.get('episodes', 0):,}",
        "frames": f"{facts.get('frames', 0):,}",
        "minutes": f"{60 * facts.get('hours', 0):,.1f}",
        "frames per second": f"{facts.get('frames per second', 0):g}",
    }
    numbers = "".join(fact(value, "", words) for words, value in shown.items())
    return f"""<section class="hero grade">
<div class="card headline"><div class="big {report.grade}">{report.grade}</div>
<p class="count">grade<br><span class="number">{report.counts}</span></p></div>
<div class="card facts counts">{numbers}</div></section>"""


def findings_section(report: Report) -> str:
    """Every finding, the worst first."""
    cards = "".join(map(finding_card, report.findings)) or '<p class="hint">No rule found anything.</p>'
    words = f"{len(report.passed)} rules found nothing, {len(report.not_run)} could not look."
    return f'<h2>Findings</h2><p class="hint">{words}</p>{cards}'


def finding_card(finding: Finding) -> str:
    """What was found and where, why it matters, what to do."""
    rows = {"found": finding.measured, "why": finding.why, "do": finding.fix}
    entries = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in rows.items())
    items = "".join(f"<li>{escape(str(place))}</li>" for place in finding.places[:SHOWN_PLACES])
    more = len(finding.places) - SHOWN_PLACES
    rest = f"<li>and {more} more; <code>--json</code> lists all</li>" if more > 0 else ""
    first = escape("; ".join(map(str, finding.places[:1])))
    others = f"{first} and {len(finding.places) - 1} more"
    listed = f"<details><summary>{others}</summary><ul>{items}{rest}</ul></details>"
    where = f"<dt>where</dt><dd>{listed if len(finding.places) > 1 else first}</dd>"
    return f"""<article class="card finding"><span class="pill {finding.severity}">{finding.severity}</span>
<h3>{escape(finding.title)}<code>{finding.rule}</code></h3>
<div class="body"><dl>{entries}{where if finding.places else ""}</dl></div></article>"""


def dimensions_section(material: Material) -> str:
    """Ranges of every dimension, and how much of it the normalisation clips."""
    rows = "".join(
        f"<h3>{vector.kind}</h3>" + "".join(dimension_row(vector, d) for d in range(len(vector.names)))
        for vector in material.vectors
    )
    return f"""<h2>Ranges</h2>
<p class="hint">Bar: 1st to 99th percentile, which becomes -1 to 1. Line: all values. Orange: median. Grey field: what
the robot can do, where it is known. Clipped: share of the values outside the bar; 2 % is usual.</p>
<div class="card ranges"><div class="span head"><span>dimension</span><span></span><span>all values</span>
<span>clipped</span></div>{rows}</div>"""


def dimension_row(vector: Vector, d: int) -> str:
    """One dimension on a track that spans its values and its limits."""
    low, q01, median, q99, high = (float(value) for value in vector.quantiles[:, d])
    limits = [float(value) for value in vector.limits[d] if np.isfinite(value)]
    left, right = min(low, *limits, high), max(high, *limits, low)
    width = (right - left) or 1.0

    def part(name: str, begin: float, end: float) -> str:
        place = f"left:{100 * (begin - left) / width:.2f}%;width:{max(0.4, 100 * (end - begin) / width):.2f}%"
        return f'<span class="{name}" style="{place}"></span>'

    parts = [part("limits", *limits) if limits else "", part("all", low, high), part("interval", q01, q99)]
    parts.append(f'<span class="median" style="left:{100 * (median - left) / width:.2f}%"></span>')
    clipped = float(vector.clipped[d])
    loud = "number loud" if clipped > MANY_CLIPPED else "number"
    unit = UNIT_SIGNS.get(vector.units[d], vector.units[d])
    return f"""<div class="span"><span class="name">{escape(vector.names[d])}<small>{escape(unit)}</small></span>
<span class="track" aria-hidden="true">{"".join(parts)}</span>
<span class="number">{low:.4g} to {high:.4g}</span><span class="{loud}">{clipped:.1%}</span></div>"""


def episodes_section(report: Report, material: Material) -> str:
    """Lengths, instructions, and where the findings are."""
    seconds = material.lengths / material.fps
    counts, edges = np.histogram(seconds, bins=min(LENGTH_BINS, max(1, len(np.unique(seconds)))))
    bars = "".join(f'<i style="height:{100 * count / counts.max():.1f}%"></i>' for count in counts)
    said = Counter(material.instructions)
    rows = "".join(
        instruction_row(text, count, max(said.values())) for text, count in said.most_common(SHOWN_INSTRUCTIONS)
    )
    more = len(said) - SHOWN_INSTRUCTIONS
    others = f'<p class="hint">and {more} more</p>' if more > 0 else ""
    title = f"{len(said)} instruction{'' if len(said) == 1 else 's'}"
    return f"""<h2>Episodes</h2><section class="pair">
<div class="card"><h3>Length</h3><div class="bars">{bars}</div>
<div class="axis number"><span>{edges[0]:.1f} s</span><span>median {np.median(seconds):.1f} s</span>
<span>{edges[-1]:.1f} s</span></div></div>
<div class="card"><h3>{title}</h3><div class="said">{rows}</div>{others}</div>
</section>{timeline(report, material)}"""


def instruction_row(text: str, count: int, most: int) -> str:
    """One instruction and how often it is given."""
    bar = f'<span class="track"><span class="interval" style="left:0;width:{100 * count / most:.1f}%"></span></span>'
    return f'<div><span>“{escape(text)}”</span><span class="number">{count:,}</span>{bar}</div>'


def timeline(report: Report, material: Material) -> str:
    """A strip per rule that found something in certain episodes: from the first episode to the last."""
    episodes: dict[tuple[str, str], set[int]] = {}
    for finding in report.findings:
        found = {place.episode for place in finding.places if place.episode is not None}
        episodes.setdefault((finding.rule, finding.severity), set()).update(found)
    strips = {key: found for key, found in episodes.items() if found}
    width = max(1.0, material.num_episodes / 300)
    rows = "".join(
        f'<span>{escape(rule)}</span><svg viewBox="0 0 {material.num_episodes} 1" preserveAspectRatio="none">'
        + "".join(
            f'<rect class="{severity}" x="{episode}" y="0" width="{width:.2f}" height="1"/>'
            for episode in sorted(found)
        )
        + "</svg>"
        for (rule, severity), found in strips.items()
    )
    words = f"Where the findings are, episode 0 to {material.num_episodes - 1}"
    return (
        f'<div class="card" style="margin-top:20px"><h3>{words}</h3><div class="when">{rows}</div></div>'
        if rows
        else ""
    )


def pictures_section(material: Material) -> str:
    """One image of each of some episodes, per camera."""
    rows = "".join(
        f'<h3 style="margin-top:14px">{escape(camera)}</h3><div class="strip">{camera_strip(material, camera)}</div>'
        for camera in material.cameras
    )
    return f"<h2>What the cameras saw</h2>{rows}" if material.samples else ""


def camera_strip(material: Material, camera: str) -> str:
    """The middle sampled image of each sampled episode."""
    samples = [sample for sample in material.samples if sample.camera == camera and not sample.problem]
    return "".join(map(picture, samples[:SHOWN_EPISODES]))


def picture(sample: Sample) -> str:
    """One image, small."""
    middle = len(sample.frames) // 2
    image = Image.fromarray(sample.images[middle])
    image.thumbnail((THUMBNAIL_HEIGHT * 4, THUMBNAIL_HEIGHT))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    words = f"episode {sample.episode}, frame {sample.frames[middle]}"
    url = data_url("image/jpeg", buffer.getvalue())
    return f'<figure><img src="{url}" alt="{words}"><figcaption class="number">{words}</figcaption></figure>'


def method_section(report: Report) -> str:
    """What was checked, and what was not."""
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in report.facts.items()}
    reasons = dict.fromkeys(report.not_run.values())
    rows = {
        "source": report.source,
        **{name: value for name, value in shown.items() if value is not None},
        "grade": "A: no error or warning; B: 1 or 2 warnings; C: more; D: 1 error; F: more. Counted by rule.",
        "found nothing": ", ".join(report.passed) or "-",
        **{
            f"not checked: {reason}": ", ".join(r for r, why in report.not_run.items() if why == reason)
            for reason in reasons
        },
    }
    entries = "".join(
        f"<dt>{escape(key)}</dt><dd><code>{escape(str(value))}</code></dd>" for key, value in rows.items()
    )
    return f'<h2>How it was checked</h2><dl class="how">{entries}</dl>'
