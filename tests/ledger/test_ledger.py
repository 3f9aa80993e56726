"""What the ledger promises, whatever lists and outcomes come in whatever order."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec import structs

from jobs.core.causes import ADVICE
from jobs.core.model import (
    Cause,
    Failed,
    Install,
    InstallKey,
    Level,
    Recovered,
    Route,
    Stage,
    Status,
    Tokens,
    Unfinished,
)
from jobs.core.secret import Secret
from jobs.ledger.reads import failures, records
from jobs.manifest.reader import open_manifest
from tests.helpers.made import enrol, line_up, opened

APPS = ("app-1", "app-2")
ACCOUNTS = st.tuples(st.sampled_from(APPS), st.sampled_from(Level), st.sampled_from("ABC"))
SPELLINGS = st.sampled_from(
    ["location_id;company_id;client_id", "Location ID,companyId,Client Key", "LOCATIONID\tcompany-id\tclientKey"]
)
TRIED = [Cause.NOT_INSTALLED, Cause.SERVER_ERROR, Cause.RECONNECT_REMOVED, Cause.NETWORK_ERROR]


def turn_of(known):
    if known["status"] is Status.PENDING:
        return 0
    if known["status"] is Status.RECOVERED:
        return 0  # It is only lined up where nobody tried it since.
    return 1 if known["cause"] and ADVICE[known["cause"]].again else 2


_LATER = "u"  # Everything happens at "t".


class Runs(RuleBasedStateMachine):
    """Lists are enrolled, installs tried, the ledger closed and opened again; `known` is what should then be known."""

    def __init__(self, new_home):
        super().__init__()
        self.home = new_home()
        self.known: dict[InstallKey, dict] = {}
        self.listed: list[InstallKey] = []
        self.pairs = 0
        self.ledger = opened(self.home)

    def teardown(self):
        self.ledger.close()

    @rule(accounts=st.lists(ACCOUNTS, max_size=8), header=SPELLINGS, note=st.text(alphabet="x\r\n'=\",;", max_size=4))
    def a_list_is_enrolled(self, accounts, header, note):
        separator = next(sign for sign in ";\t," if sign in header)
        path = self.home.folder / "installs.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            writer.writerow([*header.split(separator), "note"])
            for client, level, account in accounts:
                of_location = level is Level.SUB_ACCOUNT
                writer.writerow([account if of_location else "", "" if of_location else account, f" {client} ", note])
        manifest = open_manifest(path)
        enrol(self.ledger, manifest.rows(), manifest.columns, "t", with_companies=manifest.with_companies)
        self.listed = list(dict.fromkeys(InstallKey(*account) for account in accounts))
        for key in self.listed:
            fresh = {"status": Status.PENDING, "attempts": 0, "pair": "", "cause": None}
            self.known.setdefault(key, fresh)["cells"] = (("note", note),)

    @precondition(lambda self: self.listed)
    @rule(at=st.integers(0, 99), tries=st.integers(1, 3), cause=st.sampled_from([None, None, None, "stop", *TRIED]))
    def an_install_is_tried(self, at, tries, cause):
        key = self.listed[at % len(self.listed)]
        known = self.known[key]
        known["attempts"] += tries
        if cause is None:
            self.pairs += 1
            pair = f"pair-{self.pairs}"
            known |= {"status": Status.RECOVERED, "pair": pair, "cause": None}
            tokens = Tokens(Secret(pair), Secret("r"), "", "", "", key.level.value, "", "", "", "")
            outcome = Recovered(tokens, Route.RECONNECT, tries, "t")
        elif cause == "stop":
            outcome = Unfinished(tries)
        else:
            outcome = Failed(cause, Stage.RECONNECT, "m", 400, "", tries, "t")
            if not known["pair"]:
                known |= {"status": Status.FAILED, "cause": cause}
        self.ledger.record([(Install(key, ""), outcome)])

    @rule()
    def the_ledger_is_closed_and_opened(self):
        self.ledger.close()
        self.ledger = opened(self.home)

    @invariant()
    def each_install_is_there_once_in_the_order_of_the_list_and_the_rest_behind(self):
        with self.ledger.at_one_moment() as connection:
            found = [(InstallKey(r.client_id, r.level, r.location_id or r.company_id), r) for r in records(connection)]
            how_many_failed = len(list(failures(connection)))
        assert [key for key, _ in found][: len(self.listed)] == self.listed
        assert sorted(key for key, _ in found) == sorted(self.known)
        for key, record in found:
            known = self.known[key]
            pair = record.tokens.access_token.reveal() if record.tokens else ""
            got = {"status": record.status, "attempts": record.attempts, "pair": pair, "cause": record.cause}
            assert got | {"cells": record.cells} == known
            assert record.listed == (key in self.listed)
        failed = {key for key, known in self.known.items() if known["status"] is Status.FAILED}
        assert how_many_failed == len(failed)

    @invariant()
    def only_what_is_not_recovered_is_lined_up_in_the_order_of_a_run_and_what_was_recovered_before(self):
        for force in (False, True):
            wanted = [key for key in self.listed if force or self.known[key]["status"] is not Status.RECOVERED]
            wanted.sort(key=lambda key: (key.level is not Level.AGENCY, turn_of(self.known[key])))
            counted = line_up(self.ledger, APPS, before=_LATER if force else "")
            for app in APPS:
                mine = [key for key in wanted if key.client_id == app]
                assert [install.key for install in self.ledger.todo(app)] == mine
                assert counted.get(app, 0) == len(mine)

    @invariant()
    def a_cause_narrows_to_what_failed_so(self):
        line_up(self.ledger, APPS, causes=[Cause.SERVER_ERROR])
        got = {install.key for app in APPS for install in self.ledger.todo(app)}
        assert got == {key for key in self.listed if self.known[key]["cause"] is Cause.SERVER_ERROR}


# To make a failing sequence shorter would take minutes; ten steps can be read.
_PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


@pytest.mark.parametrize(("home", "examples"), [("sqlite", 20), ("postgresql", 8)], indirect=["home"])
def test_the_ledger_keeps_its_promises(home, examples):
    numbers = count(1)

    def new_home():
        number = next(numbers)
        folder = home.folder / str(number)
        folder.mkdir()
        name = home.settings.name and f"{home.settings.name}, {number}"
        return replace(home, folder=folder, settings=structs.replace(home.settings, name=name))

    how = settings(max_examples=examples, stateful_step_count=10, deadline=None, phases=_PHASES)
    run_state_machine_as_test(partial(Runs, new_home), settings=how)
