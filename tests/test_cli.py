"""The command from outside: wrong options, and what is said of them."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "Usage"),
        (("run",), "INPUT"),
        (("run", "x.csv", "--frob"), "--frob"),
        (("run", "x.csv", "--rate", "nan"), "--rate"),
        (("run", "x.csv", "--max-duration", f"{'9' * 400}h"), "--max-duration"),
    ],
)
def test_a_wrong_call_is_named_and_the_last_line_has_the_code_in_words(play, arguments, named):
    done = play()(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "exit 2: could not start; nothing was sent"
