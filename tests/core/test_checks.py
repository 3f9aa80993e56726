"""What an answer says about an access token: the table, row by row."""

from __future__ import annotations

import pytest

from jobs.core.checks import GOOD, MEANS, Check, verdict
from jobs.core.model import Answer, Cause, Stage


def said(status, says="", **more):
    return Answer(Stage.PROOF, status, says, **more)


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        (None, Check.WORKS),
        (said(401, "The token is not authorized for this scope."), Check.ALIVE),
        (said(403, "the token is not authorized for this scope"), Check.ALIVE),
        (said(401, "Invalid JWT"), Check.REFUSED),
        (said(401, "Invalid token: access token is invalid"), Check.REFUSED),
        (said(401, "Token's user type mismatch!"), Check.REFUSED),
        (said(403, "The token does not have access to this location."), Check.REFUSED),
        (said(401), Check.REFUSED),
        (said(200, cause=Cause.WRONG_ACCOUNT), Check.REFUSED),
        (said(200, cause=Cause.MALFORMED_ANSWER), Check.UNKNOWN),
        (said(401, "version header was not found."), Check.UNKNOWN),
        (said(401, "This route is not yet supported by the IAM Service."), Check.UNKNOWN),
        (said(403, "error code: 1010", foreign=True), Check.UNKNOWN),
        (said(400, "Location is not active"), Check.UNKNOWN),
        (said(404, "Cannot GET /locations/x"), Check.UNKNOWN),
        (said(429), Check.UNKNOWN),
        (said(500, "The token is not authorized for this scope."), Check.UNKNOWN),
        (said(0, cause=Cause.NETWORK_ERROR), Check.UNKNOWN),
    ],
)
def test_what_an_answer_means(answer, check):
    assert verdict(answer) is check


def test_every_result_has_its_words_and_two_need_no_recovery():
    assert MEANS.keys() == {*Check}
    assert {Check.WORKS, Check.ALIVE} == GOOD
