"""A ledger copied from one engine into the other and back is the same, whatever its texts are."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from jobs.core.model import Broken
from jobs.ledger import tables
from jobs.ledger.copying import copy_rows
from jobs.ledger.opening import open_ledger
from jobs.ledger.refusals import usual_wait
from tests.helpers.homes import home_in_database, home_in_folder
from tests.helpers.made import COLUMNS, all_causes, make_run, place

# A list is UTF-8, so it holds no surrogates. Nobody writes noncharacters.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0"), max_size=12)
AWKWARD = ("\\N", "\\.", "a\tb\nc\\", "NULL", '"', "'", "\0", "\r\n", "Ä 😀", "x" * 5000, "")


def everything(ledger):
    with ledger.engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in tables.metadata.sorted_tables
            if table is not tables.meta
        }


def copied(source, target):
    """What `target` holds after a copy of `source`."""
    old = source.open(usual_wait(), "a test")

    def fill(new):
        with old.at_one_moment() as connection:
            copy_rows(connection, new)

    target.fill(usual_wait(), "a test", fill, lambda: None)
    old.close()
    new = target.open(usual_wait(), "a test")
    try:
        return everything(new)
    finally:
        new.close()


def check(server, texts):
    with tempfile.TemporaryDirectory() as folder:
        here, back = Path(folder) / "here", Path(folder) / "back"
        rows = [(place(100 + n, "", text, text), None) for n, text in enumerate(texts)]
        lines = [(Broken(200 + n, text, text, text, (text, text, "more"), text), None) for n, text in enumerate(texts)]
        make_run(here, COLUMNS, [*all_causes(), *rows, *lines])
        back.mkdir()
        source, between = home_in_folder(here), home_in_database(server, Path(folder) / "elsewhere")
        ledger = open_ledger(here, "")
        was = everything(ledger)
        ledger.close()
        assert copied(source, between) == was
        assert copied(between, home_in_folder(back)) == was


def test_awkward_texts_are_copied_as_they_are(postgres):
    check(postgres, AWKWARD)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, max_size=6))
def test_any_text_is_copied_as_it_is(postgres, texts):
    check(postgres, texts)
