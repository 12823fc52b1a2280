"""The report: what it says, that it needs no network, and that it survives odd names."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from worlds import LineWorld, open_walker

from molmoact2.evaluation.benchmark import Benchmark, run_benchmark
from molmoact2.evaluation.charts import interval_bar, joint_chart, line, stairs, value_range
from molmoact2.evaluation.report import write_report
from molmoact2.evaluation.summary import Tempo, measure_tempo, summarise, summarise_tasks

BENCHMARK = Benchmark(
    open_environment=LineWorld, open_policy=open_walker, tasks=("left", "right"), num_episodes=6, num_films=1
)
PROTOCOL = {"policy": "runs/<walker>", "environment": "line", "embodiment": "so101_tabletop"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: 4 of 6 left, 4 of 6 right, the failures all by going to the other goal."""
    output = tmp_path_factory.mktemp("run")
    for _ in run_benchmark(BENCHMARK, output, PROTOCOL):
        pass
    return output


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text()


class Outline(HTMLParser):
    """The tags of a page, and the attributes that make a browser fetch something."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "poster", "action", "data")]


def test_it_needs_no_network(page):
    outline = Outline(page)
    assert outline.addresses
    assert all(address.startswith("data:") for address in outline.addresses)
    without_data = re.sub(r"data:[a-z/0-9]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.findall(r"https?://|//[a-z]|@import|<link", without_data.replace("// ", ""))


def test_it_states_success_with_intervals(page):
    assert "<b>8 of 12</b>" in page
    assert "95 % interval 39 to 86 %" in page
    assert page.count("<b>4 / 6</b>") == 2
    assert "wrong object 33.3 %" in page


def test_it_states_the_honest_rate_of_looking(page):
    assert "3.3<small>Hz</small></b><span>re-planning: a new look after every 3 actions" in page
    assert "(amortised)" in page
    assert "The robot takes 10 actions per second" in page
    assert re.search(r"an\s+arm that also waited would re-plan 3.3 times", page)


def test_it_shows_the_filmed_episodes(page):
    outline = Outline(page)
    assert outline.tags.count("video") == 2
    assert outline.tags.count("article") == 2
    assert outline.tags.count("svg") == 2 * 6
    assert all(f"<figcaption>{camera}</figcaption>" in page for camera in ("front", "wrist"))
    assert page.count("<td>success</td>") == 8


def test_names_are_escaped(page):
    assert "&lt;walker&gt;" in page
    assert "<walker>" not in page


def test_every_tag_is_closed(page):
    body = page[page.index("<main>") : page.index("<script>")]
    for tag in ("div", "section", "article", "figure", "span", "dl", "table", "details", "p", "b", "svg"):
        assert len(re.findall(rf"<{tag}[ >]", body)) == len(re.findall(rf"</{tag}>", body)), tag


def test_a_run_without_episodes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path)
    run_benchmark(replace(BENCHMARK), tmp_path, PROTOCOL).close()
    runs = run_benchmark(BENCHMARK, tmp_path, PROTOCOL)
    next(runs)
    runs.close()
    with pytest.raises(ValueError, match="no finished episode"):
        write_report(tmp_path)


def record(task, failure):
    return {"task": task, "success": failure is None, "failure": failure}


def test_summaries_count_by_task_and_reason():
    records = [record("a", None), record("b", "wrong object"), record("a", "out of time"), record("b", "out of time")]
    summary = summarise(records)
    assert (summary.num_successes, summary.num_episodes, summary.num_failures) == (1, 4, 3)
    assert summary.failures == {"out of time": 2, "wrong object": 1}
    assert summary.wrong_object_rate == 0.25
    assert {task: part.num_episodes for task, part in summarise_tasks(records).items()} == {"a": 2, "b": 2}
    assert summary.sentence == "1 of 4, 25% (5-70)"


def test_tempo_says_what_waiting_costs():
    tempo = Tempo(control_hz=15, num_action_steps=8, plan_seconds=0.1, plan_seconds_p95=0.2, stage_seconds={})
    assert tempo.replans_per_second == pytest.approx(1.875)
    assert tempo.amortised_actions_per_second == pytest.approx(80)
    assert tempo.blocking_replans_per_second == pytest.approx(1 / (8 / 15 + 0.1))


def test_tempo_pools_all_plans():
    def episode(seconds):
        return {
            "control_hz": 10.0,
            "actions_per_plan": 3,
            "each_plan_seconds": seconds,
            "stage_seconds": {"flow": seconds[0] / 2},
        }

    tempo = measure_tempo([episode([0.2]), episode([0.4, 0.6])])
    assert tempo.plan_seconds == pytest.approx(0.4)
    assert tempo.stage_seconds == {"flow": pytest.approx(0.15)}


def test_chart_lines():
    values = np.array([1.0, 2.0, 0.5])
    assert line(values, start=4) == "M4 -1.00L5 -2.00L6 -0.50"
    assert stairs(values) == "M0 -1.00H1L1 -2.00H2L2 -0.50H3"
    assert line(values[:0]) == stairs(values[:0]) == ""


def test_a_still_joint_looks_still():
    assert value_range(np.full(5, 20.0)) == (18.0, 22.0)
    assert value_range(np.array([0.0, 10.0]), np.array([-2.0])) == (-2.0, 10.0)


def test_a_chart_has_a_path_per_plan():
    chart = joint_chart(
        steps=[0, 2],
        planned=np.array([[0.0, 1, 2, 3], [2, 3, 4, 5]]),
        executed=np.array([0.0, 1, 2, 3]),
        measured=None,
    )
    assert chart.count('class="plan"') == 2
    assert 'data-plan="1" d="M2 -2.00' in chart
    assert "measured" not in chart


def test_an_interval_bar_is_where_it_says():
    bar = interval_bar(0.5, (0.25, 0.75))
    assert "left:25.0%;width:50.0%" in bar
    assert "left:50.0%" in bar
