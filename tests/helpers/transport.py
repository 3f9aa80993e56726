"""A transport that answers at once, without a network, for tests of the code above it."""

from __future__ import annotations

import json
from collections import defaultdict
from types import SimpleNamespace
from urllib.parse import urlsplit

from requests.structures import CaseInsensitiveDict

from jobs.highlevel.transport import Raw


class FakeTransport:
    """Answers a path with what it was told for it, in that order, and again with the last of it. `sent` are the requests."""

    connecting = 0
    wire = SimpleNamespace(is_fit=True)

    def __init__(self):
        self.sent = []
        self._answers = defaultdict(list)

    def answer(self, path, body=b"", status=200, headers=()):
        """Say how `path` is answered: with bytes, with JSON, or with an exception where no answer comes."""
        content = body if isinstance(body, bytes | Exception) else json.dumps(body).encode()
        self._answers[path].append((content, status, CaseInsensitiveDict(headers)))

    def send(self, request, within=None):
        self.sent.append(request)
        answers = self._answers[urlsplit(request.url).path]
        content, status, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(content, Exception):
            raise content
        return Raw(status, headers, content, whole=True)

    def open(self, *, fresh=False):
        """There is always a connection."""

    def close(self):
        """There is nothing to close."""

    close_mine = close
