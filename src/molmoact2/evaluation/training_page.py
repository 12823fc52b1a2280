"""The training report as one HTML file: what was found in words, then the charts and tables behind each sentence.

It fetches nothing, follows the reader's light or dark, and fits a phone.
"""

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.evaluation.examination import NEAREST, POLICY, STILL, Examination
from molmoact2.evaluation.open_loop import Errors, Saturation
from molmoact2.evaluation.report import PAGE, UNIT_SIGNS
from molmoact2.evaluation.sensitivity import MATTERS, OTHER_NOISE, OTHER_WORDS, RELIED_ON, Effect
from molmoact2.evaluation.training_findings import MUCH_SATURATED, Finding, interval_words, percent

Curves: TypeAlias = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Name of a logged number -> steps [n] and values [n]."""

LINES = {POLICY: "policy", STILL: "still", NEAREST: "nearest"}
"""Who plans -> its class in the style sheet."""
SIDE_NUMBERS = ("learning_rate", "per_second", "gradient_norm", "lr")
"""Parts of the names of logged numbers that are drawn small, because they say how it went and not how well."""
MOST_POINTS = 300
"""Points of a curve that are drawn; of more, neighbours are averaged."""
TRACK = (0.5, 8.0)
"""Ratios at the ends of a track, which is logarithmic."""
LEAD = """What the policy plans at frames of episodes that it was not trained on, against what was recorded to happen
next. Nothing is executed here: this page says what it looks at, not how often it succeeds."""
PILLS = {
    "better": "yes",
    "worse": "no",
    "relies": "yes",
    "uses": "somewhat",
    "ignores": "no",
    "unclear": "cannot tell",
    "untestable": "cannot tell",
    "both": "no",
    "images at least": "no",
    "images only": "no",
    "state only": "yes",
    "neither": "neither",
    "fits": "yes",
    "saturated": "no",
}
"""Answer of a finding -> answer to its title."""
TITLES = {
    "skill": "Does it predict?",
    "cameras": "Does it look?",
    "words": "Does it listen?",
    "shortcut": "Does it take a shortcut?",
    "saturation": "Does the data fit?",
}


def training_page(
    examination: Examination, findings: Sequence[Finding], curves: Curves, method: Mapping[str, str]
) -> str:
    """The whole page."""
    errors = examination.errors[POLICY]
    return Template((PAGE / "training.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"Training report · {examination.tag}"),
        headline=escape(f"What the policy for {examination.tag} learned"),
        lead=LEAD,
        summary=summary_section(errors, findings),
        open_loop=open_loop_section(examination),
        sensitivity=sensitivity_section(examination),
        saturation=saturation_section(examination),
        curves=curves_section(curves) if curves else "",
        method=method_section(method),
        style="\n".join((PAGE / name).read_text(encoding="utf-8") for name in ("style.css", "training.css")),
    )


def summary_section(errors: Errors, findings: Sequence[Finding]) -> str:
    """The error in one number, and the findings in words."""
    rows = "".join(
        f'<div class="finding"><span class="pill {one.tone}">{PILLS[one.answer]}</span>'
        f"<div><h3>{TITLES[one.subject]}</h3><p>{escape(one.sentence)}</p></div></div>"
        for one in findings
    )
    return f"""<section class="hero">
<div class="card headline"><div class="big number">{100 * errors.overall:.1f}<small>%</small></div>
<p class="count">mean error<br><span>as a share of the range between a joint's 1 % and 99 % quantile, over all joints
and steps</span></p></div><div class="card findings">{rows}</div></section>"""


def open_loop_section(examination: Examination) -> str:
    """Error over the horizon and per joint, beside the baselines."""
    by_step = {name: errors.relative_by_step for name, errors in examination.errors.items()}
    seconds = len(examination.errors[POLICY].by_step) / examination.fps
    joints = "".join(
        figure(
            name.replace("_", " "),
            {who: errors.by_step[:, index] for who, errors in examination.errors.items()},
            sign(unit),
        )
        for index, (name, unit) in enumerate(zip(examination.joints, examination.units, strict=True))
    )
    legend = "".join(f'<span class="{LINES[name]}"><i></i>{name}</span>' for name in examination.errors)
    whole = figure("all joints", {name: 100 * values for name, values in by_step.items()}, " %")
    return f"""<h2>How far ahead it sees</h2>
<p class="hint">Mean absolute error against the recorded actions, from now (left) to {seconds:.2g} s ahead (right);
every chart begins at 0. Both baselines see no image: one does not move, the other does what was done at the training
frame with the most similar joint state.</p>
<div class="lines">{legend}</div>
<div class="card wide large">{whole}</div><div class="grid small">{joints}</div>{error_table(examination)}"""


def figure(name: str, lines: Mapping[str, NDArray[np.float64]], unit: str) -> str:
    """A chart of one line per planner over the horizon, from 0 to the largest value, which the caption says."""
    top = max(float(np.nanmax(values)) for values in lines.values())
    paths = "".join(
        path(np.arange(len(values)), values, (0, max(1, len(values) - 1)), (0, 1.08 * top), LINES[who])
        for who, values in reversed(list(lines.items()))
    )
    caption = f"<b>{escape(name)}</b><span class='number'>0 to {top:.3g}{escape(unit)}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{svg(paths)}</figure>"


def svg(paths: str) -> str:
    """A chart that stretches to its place; coordinates are 0 to 100, y down."""
    return f'<svg class="chart" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{paths}</svg>'


def path(
    x: NDArray[np.number],
    y: NDArray[np.floating],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    kind: str,
) -> str:
    """A line through the finite points of x and y [n], in a chart that shows these ranges."""
    known = np.isfinite(y)
    (left, right), (low, high) = x_range, y_range
    across = 100 * (x[known] - left) / max(right - left, 1e-12)
    down = 100 - 100 * (y[known] - low) / max(high - low, 1e-12)
    points = "L".join(f"{u:.2f} {v:.2f}" for u, v in zip(across, down, strict=True))
    return f'<path class="{kind}" d="{f"M{points}" if points else ""}"/>'


def error_table(examination: Examination) -> str:
    """Every joint's errors, in robot units."""
    groups = "".join(f'<th class="group right" colspan="3">{escape(name)}</th>' for name in examination.errors)
    heads = '<th class="right">MAE</th><th class="right">RMSE</th><th class="right">p95</th>' * len(examination.errors)
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}{escape(f' ({unit})' if unit else '')}</td>"
        f"<td class='number right'>{share_words(examination.errors[POLICY].relative[index])}</td>"
        + "".join(
            f"<td class='number right'>{values[index]:.3g}</td>"
            for errors in examination.errors.values()
            for values in (errors.mean_absolute, errors.root_mean_square, errors.percentile_95)
        )
        + "</tr>"
        for index, (name, unit) in enumerate(zip(examination.joints, examination.units, strict=True))
    )
    return f"""<div class="scroll"><table><tr><th class="group"></th><th class="group"></th>{groups}</tr>
<tr><th>joint</th><th class="right">policy, of the range</th>{heads}</tr>{rows}</table></div>"""


def share_words(share: float) -> str:
    """A share as a percentage, or a dash where there is none."""
    return percent(share) if np.isfinite(share) else "-"


def sign(unit: str) -> str:
    """What is written behind a number of this unit."""
    return {"deg": "°", "": ""}.get(unit, f" {UNIT_SIGNS.get(unit, unit)}")


def sensitivity_section(examination: Examination) -> str:
    """Every variation: what it does to the error, and to the plan."""
    effects = examination.effects
    rows = "".join(effect_row(effect) for name, effect in effects.items() if name != OTHER_NOISE)
    untested = (
        ""
        if OTHER_WORDS in effects
        else ('<p class="hint">All episodes have the same instruction, so no other one could be put in its place.</p>')
    )
    noise = effects[OTHER_NOISE].change.value
    first, kept = next(iter(examination.compared)), interval_words(examination.kept_blind)
    return f"""<h2>What it acts on</h2>
<p class="hint">The same frames with the same noise, but for what is named. The dot is the error over the error for the
frames as recorded, the band its 95 % interval (paired bootstrap over frames), the tick 1: no difference. The last
column is how far the plan moves, as a share of a joint's range; other noise alone moves it by {percent(noise)}.</p>
<div class="card wide"><div class="effect head"><span>changed</span>
<span>error, {TRACK[0]:g} to {TRACK[1]:g} times</span><span class="right">times the error</span>
<span class="right">plan moves</span></div>{rows}</div>{untested}
<p class="hint" style="margin-top:12px">Used: the whole interval is above {MATTERS:g}; relied on: above {RELIED_ON:g};
ignored: below {MATTERS:g}; otherwise it stays open. Of grey and black, the one that harms less decides. With all
cameras blank, the share of its advantage over {escape(first)} that is left is {kept}: what it knows from the state and
the words alone. A blank image is unlike anything it was trained on, so a growing error shows that images are used, not
that they are understood.</p>"""


def effect_row(effect: Effect) -> str:
    """One variation."""
    ratio = effect.ratio
    known = np.isfinite(ratio.value)
    words = f"<b>{ratio.value:.2f}</b> {ratio.low:.2f} to {ratio.high:.2f}" if known else "not known"
    track = ratio_track(effect) if known else "<span></span>"
    return f"""<div class="effect"><span>{escape(effect.variation.name)}</span>{track}
<span class="right number">{words}</span>
<span class="right number change">{percent(effect.change.value)}</span></div>"""


def ratio_track(effect: Effect) -> str:
    """A ratio as a dot on its interval, on a logarithmic track; what is beyond its ends is drawn there."""
    bottom, top = np.log(TRACK)
    places = (np.log(np.maximum(1e-9, [*effect.ratio, 1.0])) - bottom) / (top - bottom)
    value, low, high, one = 100 * np.clip(places, 0, 1)
    return (
        '<span class="track" aria-hidden="true">'
        f'<span class="interval" style="left:{low:.1f}%;width:{high - low:.1f}%"></span>'
        f'<span class="one" style="left:{one:.1f}%"></span><span class="rate" style="left:{value:.1f}%"></span></span>'
    )


def saturation_section(examination: Examination) -> str:
    """What does not fit into the checkpoint's normalisation, per dimension."""
    state, action = examination.saturation["state"], examination.saturation["action"]
    names = {"state": examination.state_names, "action": examination.joints}
    rows = saturation_rows("state", names["state"], state) + saturation_rows("action", names["action"], action)
    return f"""<h2>What does not fit</h2>
<p class="hint">The checkpoint normalises each dimension to a range; beyond it states are seen, and actions said, as its
end. Where the range is that of the 1 % and 99 % quantiles, 2 % outside are to be expected. Plans at a bound are
suspicious only where recorded actions are not.</p>
<div class="scroll"><table><tr><th></th><th>dimension</th><th class="right">range</th>
<th class="right">recorded outside</th><th class="right">recorded at a bound</th>
<th class="right">planned at a bound</th></tr>
{rows}</table></div>"""


def saturation_rows(kind: str, names: Sequence[str], part: Saturation) -> str:
    """A row per dimension; shares that are worth a warning stand out."""
    planned = np.full(len(names), np.nan) if part.predicted_at_bound is None else part.predicted_at_bound
    excess = np.nan_to_num(planned - part.recorded_at_bound)
    loud = {True: "number right loud", False: "number right"}
    return "".join(
        f"<tr><td>{kind}</td><td>{escape(name.replace('_', ' '))}</td>"
        f"<td class='number right'>{part.low[i]:.4g} to {part.high[i]:.4g}</td>"
        f"<td class='{loud[bool(part.recorded_outside[i] > MUCH_SATURATED)]}'>{percent(part.recorded_outside[i])}</td>"
        f"<td class='number right'>{percent(part.recorded_at_bound[i])}</td>"
        f"<td class='{loud[bool(excess[i] > MUCH_SATURATED)]}'>{share_words(planned[i])}</td></tr>"
        for i, name in enumerate(names)
    )


def curves_section(curves: Curves) -> str:
    """Every number that the run logged over its steps; the ones that say how well it went first and larger."""
    is_side = {name: any(part in name for part in SIDE_NUMBERS) for name in curves}
    span = (min(x.min() for x, _ in curves.values()), max(x.max() for x, _ in curves.values()))
    large, tiny = (
        "".join(curve(name, *curves[name], span) for name in curves if is_side[name] == wanted)
        for wanted in (False, True)
    )
    return f"""<h2>How it learned</h2>
<p class="hint">Everything that the run logged, from step {span[0]:,.0f} to {span[1]:,.0f}. What is always above 0 is
drawn on a logarithmic scale. Captions give the first and the last value.</p>
<div class="grid small">{large}</div><div class="grid tiny small">{tiny}</div>"""


def curve(name: str, steps: NDArray[np.float64], values: NDArray[np.float64], span: tuple[float, float]) -> str:
    """A chart of one logged number."""
    x, y = thin(steps), thin(values)
    scaled = np.log10(y) if (values > 0).all() else y
    finite = scaled[np.isfinite(scaled)]
    ends = (float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf)))
    words = f"{values[0]:.3g} → {values[-1]:.3g}"
    room = 0.06 * max(ends[1] - ends[0], 1e-3)
    line = path(x, scaled, span, (ends[0] - room, ends[1] + room), "value")
    caption = f"<b>{escape(name.replace('_', ' '))}</b><span class='number'>{words}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{svg(line)}</figure>"


def thin(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `MOST_POINTS` values: means of neighbours."""
    parts = np.array_split(values, min(len(values), MOST_POINTS))
    return np.array([part.mean() for part in parts])


def method_section(method: Mapping[str, str]) -> str:
    """How it was measured, for whoever wants to measure it again."""
    entries = "".join(f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>" for key, value in method.items())
    return f'<h2>How it was measured</h2><dl class="how">{entries}</dl>'
