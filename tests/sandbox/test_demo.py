"""The demo runs beside the user's project. It tells nobody whom that project tells, and touches nothing that it keeps."""

from __future__ import annotations

from msgspec.structs import fields

from jobs.config.settings import Settings, load_settings
from jobs.core.secret import Secret
from jobs.sandbox.alone import ALONE
from jobs.sandbox.demo import PROJECT, play
from jobs.sandbox.world import load_world

NOBODY = ("", (), Secret(""))


def test_every_setting_that_names_somebody_or_a_place_is_empty_in_the_demo(tmp_path):
    names = {
        f"RECOVERY_{section.name}__{field.name}".upper()
        for section in fields(Settings)
        for field in fields(section.type)
        if field.default in NOBODY
    }
    assert names == ALONE.keys()
    assert load_settings(tmp_path / "none.toml", ALONE, {}) == Settings()


def test_the_commands_of_the_demo_hear_nothing_of_these_settings(monkeypatch):
    for name in ALONE:
        monkeypatch.setenv(name, "[not valid")
    world = load_world(PROJECT / "data" / "sandbox.example.json")
    assert play(world, {"A plan, which wrong settings would stop": ["plan", "data/installs.example.csv"]}) == [0]
