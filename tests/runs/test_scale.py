"""A million rows work: what is not held in memory, and what is not written again."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from queue import SimpleQueue

import pytest

from jobs.core.model import Answer, Broken, Install, InstallKey, Level, Row, Stage, Tokens
from jobs.core.secret import Secret
from jobs.ledger.opening import open_ledger
from jobs.recovery.agency_tokens import AgencyTokens, Bearer
from jobs.recovery.attempt import RetryPolicy
from jobs.recovery.breaker import Breaker
from jobs.recovery.connectivity import Connectivity
from jobs.recovery.dispatcher import Dispatcher, Sizes
from jobs.recovery.notes import Notes
from jobs.recovery.scheduler import outcomes
from jobs.recovery.state import Parts
from tests.helpers.simulated_run import reconnecting

ROW = Row(2, "app-1", Level.SUB_ACCOUNT, "LocA", "CoA", ("Customer A", "gold"))


@pytest.fixture
def ledger(tmp_path):
    ledger = open_ledger(tmp_path, "https://api.example.test")
    yield ledger
    ledger.close()


def enrol(ledger, rows):
    """The rows of the ledger that were written for it."""
    with ledger.enrolling() as manifest:
        manifest.stage(rows)
        connection = manifest.connection.connection.driver_connection
        before = connection.total_changes
        manifest.enrol(("name", "plan"), "2026-11-24T10:00:00.000Z", with_companies=True)
        return connection.total_changes - before


def test_an_install_whose_line_is_as_it_was_is_not_written_again(ledger):
    rows = [replace(ROW, line=number, account_id=f"Loc{number}") for number in range(2, 102)]
    assert enrol(ledger, rows) >= 100
    assert enrol(ledger, rows) < 10
    changed = [replace(rows[0], cells=("Customer A", "silver")), *rows[1:50]]
    assert 51 <= enrol(ledger, changed) < 61  # one is changed, and fifty are no longer listed


def test_lines_that_cannot_be_used_are_not_held_in_memory(ledger):
    wrong = (Broken(line, "bad id", "", "", ("x" * 200,), "it is bad") for line in range(2, 5_002))
    with ledger.looking_ahead() as manifest:
        tracemalloc.start()
        assert manifest.stage(wrong) == 5_000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert manifest.broken_lines() == 5_000
    assert peak < 2_000_000


def test_tokens_of_agencies_and_what_they_list_are_not_held_in_memory(ledger):
    tracemalloc.start()
    bearers = AgencyTokens(ledger.scratch)
    bearers.add_all(Bearer("app-1", f"Co{n}", Secret(f"{n:2000}")) for n in range(2_000))
    before, _ = tracemalloc.get_traced_memory()
    for n in range(2_000):
        agency = bearers.of("app-1", f"Co{n}")
        bearers.keep_listing(agency, [f"Loc{n}-{m}" for m in range(10)])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2_000 * 700
    assert bearers.that_lists("app-1", "Loc7-3") is bearers.of("app-1", "Co7")
    assert bearers.token_of(bearers.of("app-1", "Co7")).reveal().strip() == "7"
    assert bearers.unlisted("app-1") is None


@pytest.mark.parametrize("sealed", [False, True])
def test_a_new_token_opens_an_agency_and_the_best_one_is_used_first(ledger, sealed):
    bearers, refusal = AgencyTokens(ledger.scratch), Answer(Stage.LOCATION_TOKEN, 401, "Invalid JWT")
    for token in ("old", "new", "new"):
        bearers.add(Bearer("app-1", "CoA", Secret(token), sealed=sealed))
    agency = bearers.of("app-1", "CoA")
    assert (agency.tokens, bearers.token_of(agency)) == (2, Secret("new"))
    assert not bearers.refused(agency, Secret("new"), refusal)
    assert bearers.token_of(agency) == Secret("old")
    bearers.keep_listing(agency, None)
    assert bearers.unlisted("app-1") is None
    assert bearers.refused(agency, Secret("old"), refusal)
    assert (agency.closed, bearers.token_of(agency), bearers.companies("app-1")) == (refusal, None, [])
    bearers.add(Bearer("app-1", "CoA", Secret("newest"), sealed=sealed))
    assert (agency.closed, bearers.companies("app-1")) == (None, ["CoA"])
    assert bearers.unlisted("app-1") is agency


def test_the_token_of_a_sealed_pair_is_in_no_file(ledger):
    bearers = AgencyTokens(ledger.scratch)
    bearers.add_all([Bearer("app-1", "CoA", Secret("opened-token"), sealed=True)])
    bearers.add(Bearer("app-1", "CoB", Secret("new-token"), sealed=True))
    assert [bearers.token_of(bearers.of("app-1", f"Co{x}")).reveal() for x in "AB"] == ["opened-token", "new-token"]
    kept = ledger.scratch.ask(lambda connection: connection.connection.driver_connection.serialize())
    assert b"app-1" in kept
    assert b"-token" not in kept


class Never:
    """Nothing stops the run."""

    out_of_patience = False

    def met(self):
        return False

    def no_thread(self, why):
        raise AssertionError(why)


class Waiting:
    """Ends what it was given when it is told to."""

    why_fewer = ""

    def __init__(self):
        self.given = []
        self.inbox = SimpleQueue()

    def __len__(self):
        return 8

    @property
    def busy(self):
        return len(self.given)

    def ready(self):
        return self.busy < 8

    def do(self, job):
        self.given.append(job)

    def end_all(self):
        given, self.given = self.given, []
        for job in given:
            self.inbox.put(job())


def test_installs_that_end_while_others_are_written_share_one_synced_transaction(ledger):
    pair = Tokens(Secret("a"), Secret("r"), "Bearer", "", "", "Location", "", "", "Loc", "")
    threads, notes, breaker, retry_policy = Waiting(), Notes(), Breaker(10, lambda app: False), RetryPolicy(5, 0, 0)
    parts = Parts(
        Dispatcher(threads, threads.inbox, lambda task: pair, lambda: 0, Sizes(8, fixed=True)),
        reconnecting(ledger, breaker, retry_policy, lambda: 0.0, notes),
        breaker,
        Connectivity(600, lambda n: 1.0, notes),
        Never(),
        notes,
        lambda: 0.0,
        look_up=0.01,
    )
    installs = [Install(InstallKey("app-1", Level.SUB_ACCOUNT, f"Loc{number}"), "") for number in range(9)]
    sizes = []
    for now in outcomes({"app-1": iter(installs)}, parts):
        if now.ended:
            sizes.append(len(now.ended))
        threads.end_all()
    assert sizes == [1, 8]
