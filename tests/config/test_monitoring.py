"""The recipes for a monitor ask for metrics that there are, and the alerts come when they should."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jobs.core.model import Counts, Run
from jobs.outgoing.metrics import GAUGES, PREFIX, Figures, MetricsFile
from tests.helpers.job import PROJECT
from tests.helpers.metrics import promtool

ALERTS = PROJECT / "config" / "recipes" / "alerts.yml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
PANELS = json.loads((ALERTS.parent / "dashboard.json").read_text(encoding="utf-8"))["panels"]
ASKED = [(rule["expr"], " ".join(rule["annotations"].values())) for rule in RULES]
ASKED += [(target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]
_LABELS = re.compile(r"(?:by|on) \(([^)]*)\)|\{(\w+)[=!]|\{\{ ?(?:\$labels\.)?(\w+) ?\}\}")
OF_PROMETHEUS = {"instance"}


@pytest.mark.parametrize(("expression", "words"), ASKED)
def test_a_recipe_names_only_metrics_and_labels_that_there_are(expression, words):
    names = set(re.findall(rf"{PREFIX}(\w+)", expression))
    assert names
    assert names <= GAUGES.keys()
    there = {"list", *OF_PROMETHEUS}.union(*(GAUGES[name].labels for name in names))
    named = {label.strip() for found in _LABELS.findall(f"{expression} {words}") for label in "".join(found).split(",")}
    assert named <= there


def test_every_metric_is_on_the_dashboard():
    shown = {name for expression, _ in ASKED[len(RULES) :] for name in re.findall(rf"{PREFIX}(\w+)", expression)}
    assert shown == GAUGES.keys()


def test_the_page_names_every_metric_with_its_labels():
    page = (PROJECT / "config" / "README.md").read_text(encoding="utf-8")
    rows = page.partition("| metric | tells |\n")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", "".join(row.split("|")[1] for row in rows.splitlines()))
    assert {name: tuple(filter(None, labels.split(","))) for name, labels in named} == {
        name: gauge.labels for name, gauge in GAUGES.items()
    }


def test_promtool_accepts_the_alerts_and_what_the_dashboard_asks_for(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$list", ".*")}
        for number, (expression, _) in enumerate(ASKED)
    ]
    (tmp_path / "asked.yml").write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    for file in (ALERTS, tmp_path / "asked.yml"):
        assert "SUCCESS" in promtool("check", "rules", file)


def at(hour, minute=0):
    """A moment, and the seconds that Prometheus counts from the beginning of the test to it."""
    return f"1970-01-{1 + hour // 24:02}T{hour % 24:02}:{minute:02}:00.000Z", hour * 3600 + minute * 60


RUN = Run("ab", "in.csv", "https://x", at(1)[0], counts=Counts(recovered=4))
OVER = replace(RUN, finished_at=at(2)[0], exit_code=0)
FAILED = replace(
    OVER, exit_code=1, failures_by_cause={"not_installed": 2, "refresh_invalid": 1, "location_inactive": 1}
)
NEVER, STOPPED, STORE = "RecoveryNotSucceeded", "RecoveryStopped", "RecoveryUndelivered"
# What a run has written at this moment; and at a later one, which alerts there are, with their labels.
NIGHTS = {
    "a run that goes on": (Figures(RUN, OVER, at(0)[0]), at(3), at(3, 4), {}),
    "a run that was killed": (Figures(RUN, OVER, at(0)[0]), at(3), at(3, 6), {("RecoveryKilled", ""): 1}),
    "all is well": (Figures(OVER), at(2), at(25), {}),
    "no success for a day and two hours": (Figures(OVER), at(2), at(29), {(NEVER, ""): 1}),
    "some failed": (Figures(FAILED, None, at(0)[0]), at(2), at(3), {("RecoveryFailures", o): 1 for o in ("customer", "agency")}),
    "some failed, and a run goes on": (Figures(replace(FAILED, finished_at=""), OVER, at(0)[0]), at(3), at(3, 1), {}),
    "it was stopped, and a run goes on": (Figures(RUN, replace(OVER, exit_code=3), at(0)[0]), at(3), at(3, 4), {}),
    "it could not start": (Figures(replace(OVER, exit_code=2), None, at(0)[0]), at(2), at(3), {(STOPPED, ""): 1}),
    "pairs wait": (
        Figures(replace(OVER, exit_code=1, counts=Counts(undelivered=3)), None, at(0)[0]), at(2), at(3), {(STORE, ""): 1},
    ),
}  # fmt: skip


def test_the_alerts_come_when_they_should_and_not_before(tmp_path):
    tests = []
    for name, (figures, written, looked, alerts) in NIGHTS.items():
        MetricsFile(tmp_path / "a.prom", "night", print, lambda now=written[1]: now).write(figures)
        samples = [
            sample
            for family in text_string_to_metric_families((tmp_path / "a.prom").read_text())
            for sample in family.samples
            if sample.value or family.name != f"{PREFIX}failures"  # All the others make the test slow.
        ]
        expected = [
            {"labels": f'{{alertname="{alert}"{owner and f",owner={json.dumps(owner)}"}}}', "value": value}
            for (alert, owner), value in alerts.items()
        ]
        tests.append({
            "name": name,
            "interval": "2m",
            "input_series": [
                {"series": f"{sample.name}{{{labels_of(sample)}}}", "values": f"{sample.value}x{looked[1] // 120}"}
                for sample in samples
            ],
            "promql_expr_test": [{
                "expr": 'sum by (alertname, owner) (ALERTS{alertstate="firing"})',
                "eval_time": f"{looked[1]}s",
                "exp_samples": expected,
            }],
        })  # fmt: skip
    file = tmp_path / "nights.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "2m", "tests": tests}))
    said = promtool("test", "rules", file)
    assert "SUCCESS" in said, said


def labels_of(sample):
    return ",".join(f"{name}={json.dumps(value)}" for name, value in {**sample.labels, "instance": "host"}.items())
