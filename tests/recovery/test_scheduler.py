"""Who is tried when: what waits costs nothing, what is nobody's fault uses up nobody's tries."""

from __future__ import annotations

from collections import Counter

import pytest

from jobs.core.model import Cause, Failed, Recovered, Unfinished
from jobs.ledger.opening import open_ledger
from tests.helpers.simulated_run import APP, ERROR, GONE, LATE, PAIR, REFUSED_CONNECTION, Night


@pytest.fixture
def ledger(tmp_path):
    ledger = open_ledger(tmp_path, "https://api.example.test")
    yield ledger
    ledger.close()


def kinds(ended):
    return Counter(type(outcome) for outcome in ended.values())


def test_a_hold_in_which_all_stand_at_the_gate_costs_a_turn_a_second(ledger):
    night = Night(ledger, lambda account, now, out: (PAIR, 0.2 if now < 1 else 300.0), at_gate=2)
    ended = night.run(4)
    assert kinds(ended) == {Recovered: 4}
    assert night.turns < 650


def test_tries_that_are_due_while_nothing_may_go_out_do_not_spin(ledger):
    # The first of two threads is out for ten minutes, and a retry that is due waits for a free one.
    night = Night(ledger, lambda account, now, out: (ERROR, 0.2) if now < 1 else (PAIR, 600.0), threads=1)
    assert kinds(night.run(3)) == {Recovered: 3}
    assert night.turns < 3 * 600 + 50


def test_waits_between_tries_cost_a_turn_each(ledger):
    night = Night(
        ledger, lambda account, now, out: (PAIR if now > 30 else ERROR, 0.1), attempts=30, transient_installs=999
    )
    ended = night.run(50)
    assert set(kinds(ended)) <= {Recovered, Failed}
    assert night.turns < 2 * len(night.asked) + 2 * night.now


@pytest.mark.parametrize("threads", [1, 5])
def test_a_machine_that_starts_no_more_threads_lets_the_run_go_on_with_those_there_are(ledger, threads):
    night = Night(ledger, lambda account, now, out: (PAIR, 1.0), threads=threads)
    assert kinds(night.run(40)) == {Recovered: 40}
    assert night.most_out == threads
    assert [words for words in night.said if "this machine starts no more threads" in words] == night.said
    assert len(night.said) == 1


def test_a_machine_that_starts_no_thread_at_all_stops_the_run_with_all_pending(ledger):
    night = Night(ledger, lambda account, now, out: (PAIR, 1.0), threads=0)
    assert night.run(9) == {}
    assert night.stopped == ["can't start new thread"]


def test_a_network_that_is_away_for_a_while_uses_up_nobodys_tries(ledger):
    def answer(account, now, out):
        return (REFUSED_CONNECTION, 0.01) if 8 < now < 68 else (PAIR, 0.4)

    night = Night(ledger, answer, at_gate=4, attempts=2)
    ended = night.run(300)
    assert kinds(ended) == {Recovered: 300}
    assert {outcome.attempts for outcome in ended.values()} == {1}
    # One install probes, and the others wait.
    probes = [at for at, _ in night.asked if 10 < at < 68]
    assert 5 < len(probes) < 60
    assert [words.split(":")[0] for words in night.said] == ["HighLevel cannot be reached", "HighLevel answers again"]


def test_a_network_that_stays_away_is_an_outage_after_the_patience_and_the_rest_is_pending(ledger):
    night = Night(ledger, lambda account, now, out: (PAIR, 0.4) if now < 8 else (REFUSED_CONNECTION, 0.01), patience=60)
    ended = night.run(30_000)
    assert set(kinds(ended)) == {Recovered, Unfinished}
    assert night.breaker.tripped(APP).because == "outage"
    assert night.breaker.tripped(APP).met == "hl.test refused the connection"
    assert 68 <= night.now < 80


def test_a_network_that_was_never_there_is_an_outage_by_the_tries_of_the_first_install(ledger):
    night = Night(ledger, lambda account, now, out: (REFUSED_CONNECTION, 0.01))
    ended = night.run(100)
    assert kinds(ended) == {Failed: 1}
    assert ended["Loc000"].attempts == 5
    assert night.breaker.tripped(APP).because == "outage"


@pytest.mark.parametrize("last", [1, 2])
def test_a_network_that_goes_away_when_few_installs_are_left_uses_up_none_of_their_tries(ledger, last):
    away = {f"Loc{number:03}" for number in range(20 - last, 20)}

    def answer(account, now, out):
        return (REFUSED_CONNECTION, 0.01) if account in away and now < 300 else (PAIR, 0.2)

    night = Night(ledger, answer, threads=1)  # The others are back before the network goes.
    ended = night.run(20)
    assert kinds(ended) == {Recovered: 20}
    assert {ended[account].attempts for account in away} == {1}
    said = [words.split(":")[0] for words in night.said if words.startswith("HighLevel")]
    assert said == ["HighLevel cannot be reached", "HighLevel answers again"]


def test_a_network_that_stays_away_from_the_last_install_is_an_outage_after_the_patience(ledger):
    def answer(account, now, out):
        return (REFUSED_CONNECTION, 0.01) if account == "Loc019" else (PAIR, 0.2)

    night = Night(ledger, answer, threads=1, patience=60)
    assert kinds(night.run(20)) == {Recovered: 19, Unfinished: 1}
    assert night.breaker.tripped(APP).because == "outage"
    assert 60 <= night.now < 80


def test_a_last_install_whose_answer_never_comes_fails_by_its_own_tries(ledger):
    night = Night(ledger, lambda account, now, out: (LATE, 10.0) if account == "Loc019" else (PAIR, 0.2), threads=1)
    ended = night.run(20)
    assert kinds(ended) == {Recovered: 19, Failed: 1}
    assert (ended["Loc019"].cause, ended["Loc019"].attempts) == (Cause.NETWORK_ERROR, 5)


def test_an_install_that_alone_gets_no_answer_fails_by_its_own_tries(ledger):
    def answer(account, now, out):
        return (REFUSED_CONNECTION, 0.01) if account in {"Loc007", "Loc011", "Loc013", "Loc019"} else (PAIR, 0.2)

    night = Night(ledger, answer, at_gate=2)
    ended = night.run(40)
    failed = {account: outcome for account, outcome in ended.items() if isinstance(outcome, Failed)}
    assert set(failed) == {"Loc007", "Loc011", "Loc013", "Loc019"}
    assert {(outcome.cause, outcome.attempts) for outcome in failed.values()} == {(Cause.NETWORK_ERROR, 5)}
    assert night.breaker.tripped(APP) is None


def test_the_stragglers_of_a_night_that_went_well_are_not_an_outage(ledger):
    bad = {f"Loc{number:03}" for number in range(3, 120, 8)}
    night = Night(ledger, lambda account, now, out: (ERROR if account in bad else PAIR, 0.2), at_gate=2)
    ended = night.run(120)
    assert kinds(ended) == {Recovered: 120 - len(bad), Failed: len(bad)}
    assert len(bad) > 10
    assert night.breaker.tripped(APP) is None


def test_a_server_that_fails_everybody_from_some_moment_on_is_an_outage(ledger):
    night = Night(ledger, lambda account, now, out: (PAIR if now < 3 else ERROR, 0.2), at_gate=1)
    ended = night.run(20_000)
    assert set(kinds(ended)) == {Recovered, Failed, Unfinished}
    assert night.breaker.tripped(APP).because == "outage"


def test_reconnect_that_is_gone_is_asked_three_times_and_by_those_in_flight(ledger):
    night = Night(ledger, lambda account, now, out: (PAIR if now < 5 else GONE, 0.5), at_gate=4)
    night.run(400)
    assert night.breaker.tripped(APP).because == "reconnect_removed"
    assert len([at for at, _ in night.asked if at >= 5]) <= 3 + night.most_out


def test_time_outs_of_a_crowded_proxy_lower_the_number_of_workers(ledger):
    def answer(account, now, out):
        return (LATE, 10.0) if out > 6 else (PAIR, 0.5)

    night = Night(ledger, answer, transient_installs=1_000)
    ended = night.run(3_000)
    assert kinds(ended) == {Recovered: 3_000}
    assert len(night.asked) < 3_000 * 1.5


def test_a_single_time_out_costs_little_of_the_width(ledger):
    night = Night(ledger, lambda account, now, out: (LATE, 10.0) if account == "Loc050" and now < 20 else (PAIR, 0.5))
    night.run(2_000)
    assert night.most_out > 200
