"""What is starred out, and the short cut that spares the work where nothing can be found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.core.secret import STARS, Secret, scrub


@given(st.text(min_size=4, max_size=60))
def test_no_form_of_a_secret_is_shorter_than_the_secret(value):
    assert min(map(len, Secret(value).forms())) >= len(value)


@given(st.text(alphabet='a/+&"é ', min_size=4, max_size=12), st.text(alphabet="xy", max_size=6))
def test_every_form_of_a_secret_is_starred_out(value, around):
    secret = Secret(value)
    for form in secret.forms():
        assert scrub(f"{around}{form}{around}", [secret]) == f"{around}{STARS}{around}"
