"""Software between here and HighLevel that answers in its place: firewalls, proxies, captive portals.

HighLevel answers with JSON, or with one line of Express for an unknown path. Anything else is a page of other
software, which is recognised here by its words.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from markupsafe import Markup

_LONGEST_PAGE = 40_000  # Characters. The beginning of a page shows what it is.
_HIDDEN = re.compile(r"(<script\b|</script\b|<style\b|</style\b)", re.IGNORECASE)
_MARKED_UP = re.compile(r"<(?:[a-z!?]|/[a-z])", re.IGNORECASE)
_HIGHLEVELS_OWN = re.compile(r"\bcannot (?:get|post|put|patch|delete) /", re.IGNORECASE)


class Looks(NamedTuple):
    """What an answer looks like that is not in HighLevel's form (`words`). `foreign`: other software certainly gave
    it.
    """

    words: str
    foreign: bool


_ITS_OWN = Looks("", foreign=False)
# The first match counts, since a proxy or a portal may also name its web server.
_NAMES = (
    (
        "a captive portal, where you log in to a network",
        *("captive portal", "wi-?fi", "hotspot", "network (?:authentication|login)", "accept the terms"),
        r"(?:log|sign) ?in to (?:the|this|your|our) (?:\w{1,20} )?network",
    ),
    (
        "a proxy's page",
        *(r"\bsquid\b", r"\bproxy\b", "zscaler", "forcepoint", "websense", "blue ?coat", "url filter", "web gateway"),
    ),
    (
        "a firewall",
        *("cloudflare", r"error code: 1\d{3}\b", "attention required", r"\bray id\b", "just a moment", "firewall"),
        *(r"\bwaf\b", "incapsula", "imperva", "sucuri", "akamai", "you have been blocked", "access denied"),
        *(r"request (?:was |has been )?(?:blocked|rejected)", "request could not be satisfied", "support id"),
    ),
    (
        "a web server or a gateway",
        *(r"\bnginx\b", "openresty", r"\bapache\b", r"\bhaproxy\b", r"\bvarnish\b", r"\benvoy\b", r"\biis\b"),
        *("load balancer", "bad gateway", "gateway time-?out", "upstream"),
    ),
)
_LOOKS = tuple((words, re.compile("|".join(names), re.IGNORECASE)) for words, *names in _NAMES)


def text_of(page: str) -> str:
    """The words that `page` shows, on one line: no tags, no scripts, no styles."""
    parts = _HIDDEN.split(page[:_LONGEST_PAGE])
    shown, hides = [parts[0]], False
    for mark, rest in zip(parts[1::2], parts[2::2], strict=True):
        hides = not mark.startswith("</")
        # The rest of the tag itself ends at its first bracket.
        shown += [] if hides else [rest.partition(">")[2]]
    marked_up = Markup(" ".join(shown).replace("<", " <"))  # noqa: S704 - nothing shows it as HTML: it loses its tags here
    return str(marked_up.striptags())


def looks(page: str, words: str) -> Looks:
    """What a page that is not JSON looks like, by its `words`. Nothing if the words are HighLevel's own."""
    if not words or _HIGHLEVELS_OWN.search(words):
        return _ITS_OWN
    known = next((look for look, pattern in _LOOKS if pattern.search(words)), "")
    marked_up = _MARKED_UP.search(page) is not None
    if known or marked_up:
        return Looks(
            f"something else answered in place of HighLevel ({known or 'a page of other software'})", foreign=True
        )
    return Looks("the answer is not in HighLevel's form", foreign=False)
