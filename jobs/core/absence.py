"""Whether a text says that the app, or the account, is not there. It goes by the meaning, not by one wording.

The steps are simple. It reads the text sentence by sentence, finds the word that denies something, and finds what that
word is about. That must be an installation, a location or a company. The wordings come from HighLevel's documentation
and from reports of users.
"""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PLACES = _set("location locations subaccount subaccounts company companies agency agencies account accounts")
_INSTALLATIONS = _set("installation installations install installs")
_APPS = _set("app apps application applications integration integrations")
_THINGS = _PLACES | _INSTALLATIONS | _APPS
# Other things that may not be found. A sentence that denies one of these says nothing about an install.
_OTHERS = _set(
    "access action api calendar certificate code codes config configuration contact credential credentials domain endpoint "
    "error field file function grant header host key keys method name opportunity page param parameter parameters path "
    "permission permissions plan property request resource role route scope scopes secret service session setting settings "
    "subscription token tokens type uri url user users value version webhook"
)
_PREPOSITIONS = _set("at by for from in inside into of on to under with within without")
# A part of a sentence that holds only these words does not say yet what it is about.
_FILLERS = _set(
    "a an and any are be given has have i is it our record records requested sorry specified that the there this was we "
    "were you your"
)
_DENIES = _set("not never cannot")
_LACKS = _set("found exist exists existing known recognised recognized located")
_FINDS = _set("find locate recognise recognize")
_FAILS = _set("not cannot unable failed")
_ENDED = _set("deleted removed gone")
_UNKNOWN = _set("unknown nonexistent unrecognised unrecognized")
# These words tell that the request is wrong, not that the install is not there.
_IN_THE_REQUEST = _set("given missing passed provided required sent specified supplied")
_SENTENCE = re.compile(r"[.;!?](?=\s|$)|[|\n]")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[A-Za-z0-9]+(?:[.\-][A-Za-z0-9]+)*")
_SHORTENED = (("can't", "cannot"), ("won't", "will not"), ("n't", " not"), ("sub-account", "subaccount"))
_NEAR = 4  # How many words may stand between a word that denies and what it denies.
_MOST_WORDS = 60  # The words of a sentence that are read. An API's sentences are shorter.


def names_absence(text: str) -> bool:
    """Whether `text` says that an installation, a location or a company is not there."""
    return any(_is_absence(_words(sentence)) for sentence in _SENTENCE.split(text))


def _words(sentence: str) -> list[str]:
    spread = _HUMP.sub(" ", sentence.replace("_", " ").replace("\u2019", "'")).lower()
    for short, long in _SHORTENED:
        spread = spread.replace(short, long)
    words = _WORD.findall(spread)[:_MOST_WORDS]
    joined = " ".join(words).replace("sub account", "subaccount").replace("no longer", "not")
    return joined.split()


def _is_absence(words: list[str]) -> bool:
    return any(
        _is_denied(words, at, word) or _is_ended(words, at, word) or _is_unknown(words, at, word)
        for at, word in enumerate(words)
    )


def _is_denied(words: list[str], at: int, word: str) -> bool:
    """Whether the word denies that something is there, as in "... is not found" and "cannot find the ..."."""
    soon = words[at + 1 : at + 1 + _NEAR]
    if word == "no":
        return _is_none(words[at + 1 :])
    if word in _FAILS and _FINDS & set(soon):
        found = at + 1 + next(n for n, one in enumerate(soon) if one in _FINDS)
        return _is_ours(words[found + 1 :])
    if word not in _DENIES:
        return False
    if "installed" in soon:
        return not _OTHERS & set(_about(words[:at]))
    if not _LACKS & set(soon):
        return False
    return _is_ours(words[:at]) if _about(words[:at]) else _is_ours(words[at + 1 :])


def _is_none(after: list[str]) -> bool:
    """Whether the words after "no" name something that does not exist, and not something missing from the request."""
    about = _about(after)
    if _IN_THE_REQUEST & set(about):
        return False
    return _is_ours(after) or ("installed" in about and not _OTHERS & set(about))


def _is_ended(words: list[str], at: int, word: str) -> bool:
    """Whether the word says that something was there before, as in "... was deleted"."""
    if word == "uninstalled":
        return not _OTHERS & set(_about(words[:at]))
    return word in _ENDED and _is_ours(words[:at])


def _is_unknown(words: list[str], at: int, word: str) -> bool:
    """Whether the word says that something is not known, as in "unknown ..."."""
    return word in _UNKNOWN and (_is_ours(words[at + 1 :]) or _is_ours(words[:at]))


def _is_ours(words: list[str]) -> bool:
    """Whether `words` are about an installation or a place. An app counts only if the words also name a place."""
    about = set(_about(words))
    if _OTHERS & about or not _THINGS & about:
        return False
    return bool((_PLACES | _INSTALLATIONS) & about) or bool(_PLACES & set(words))


def _about(words: list[str]) -> list[str]:
    """The first part between prepositions that names a thing: in "installation for location X", the installation."""
    part: list[str] = []
    for word in [*words, "of"]:
        if word not in _PREPOSITIONS:
            part.append(word)
        elif any(one not in _FILLERS and not one.isdigit() for one in part):
            return part
        else:
            part = []
    return []
