"""The check of the READMEs finds what is not true, and nothing else."""

from __future__ import annotations

import click
import pytest

from tests.docs import PROJECT, READMES, anchors_of, called_by, commands_of, findings

HERE = PROJECT / "data" / "README.md"
ONE = click.Command("one", params=[click.Option(["--yes"])])


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(PROJECT)))
def test_links_commands_and_files_in_a_readme_exist(file):
    assert not [*findings(file, file.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[one](gone.md)", "the link gone.md leads nowhere"),
        ("![one](../.github/gone.png)", "the link ../.github/gone.png leads nowhere"),
        ("[one](../../elsewhere.md)", "the link ../../elsewhere.md leads nowhere"),
        ("[one](#gone)", "the link #gone names a heading that is not there"),
        ("[one](../README.md#gone)", "the link ../README.md#gone names a heading that is not there"),
        ("[one](http://example.com)", "the link http://example.com is not https://... or mailto:..."),
        ("`make gone`", "make has no target gone"),
        ("```sh\ngit pull && make gone\n```", "make has no target gone"),
        ('`make recover INPUT=a.csv ARGS="--gone 5"`', "recover run has no option --gone"),
        ("`recover gone`", "recover has no command gone"),
        ("`recover --gone`", "recover has no option --gone"),
        ("`recover plan a.csv --gone`", "recover plan has no option --gone"),
        ("```\ncd a && .venv/bin/recover run a.csv --gone >> log\n```", "recover run has no option --gone"),
        ("`recover plan --company`", "recover plan has no option --company"),
        ("| `--gone N` |\n| --- |\n| `--gone N` |", "recover has no option --gone"),
        ("`.venv/bin/python -m tests.gone 1`", "there is no module tests.gone"),
        ("`jobs/gone.py`", "jobs/gone.py is not there"),
        ("```sh\nless jobs/gone.py\n```", "jobs/gone.py is not there"),
    ],
)
def test_what_does_not_exist_is_named_with_its_file_and_line(text, wrong):
    assert f"data/README.md:3: {wrong}" in [*findings(HERE, f"# A heading\n\n{text}\n")]


@pytest.mark.parametrize(
    "text",
    [
        "[one](../README.md#incident-night) [two](#the-files-of-a-run) [three](../LICENSE) [four](../tests)",
        "[one](https://example.com/a#b) and <mailto:somebody@example.com>",
        '`make` sure, `make -C FOLDER`, `make recover INPUT=a.csv ARGS="--limit 5"`, `make bench ARGS="--rounds 5"`',
        "`recover report DIR`, `pgrep -af 'recover run'`, `recover discover --company ID [--from DIR]`, `--force`",
        "`config/apps.toml`, `data/installs/results.csv`, `jobs/reports/`, `.venv/bin/python -m tests.bench.scale 5`",
        "make gone is prose, and so is recover gone",
    ],
)
def test_what_exists_is_accepted(text):
    assert not [*findings(HERE, f"# Data\n\n## The files of a run\n\n{text}\n")]


def test_an_anchor_is_what_github_makes_of_its_heading():
    text = "# What `make` does, & why\n\nWords.\n\n## Same\n\n## Same\n"
    assert anchors_of(text) == ["what-make-does--why", "same", "same-1"]


def test_a_command_in_a_group_is_known_by_both_words_and_by_its_own_options():
    group = click.Group(commands={"plain": click.Command("plain"), "all": click.Group(commands={"one": ONE})})
    assert [name for name, _ in commands_of(group)] == ["plain", "all one"]
    assert called_by("all one DIR --yes", group) == ("all one", ONE)
    assert called_by("all two", group) == ("all two", None)
