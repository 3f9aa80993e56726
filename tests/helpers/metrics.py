"""What a file of metrics tells, and what node_exporter reads in it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import contextmanager

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from jobs.outgoing.metrics import PREFIX
from tests.helpers.sockets import free_port
from tests.helpers.waiting import wait_until


class Told:
    """The values by metric, or by metric and the values of its labels beside `list` in the order of their names."""

    def __init__(self, text):
        self.values, self.labels, self.lists = {}, {}, set()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not sample.name.startswith(PREFIX):
                    continue
                assert family.type == "gauge"
                name, labels = sample.name.removeprefix(PREFIX), dict(sorted(sample.labels.items()))
                self.lists.add(labels.pop("list"))
                self.labels[name] = tuple(labels)
                self.values[(name, *labels.values()) if labels else name] = sample.value

    def __getitem__(self, name):
        return self.values[name]

    def by(self, name):
        """The values of a metric by those of its labels, without what is 0."""
        return {key[1:]: value for key, value in self.values.items() if key[0] == name and value}


class Soon(threading.Event):
    """The end of a monitor, whose minutes are over soon. `waits` are those that it was asked for, in seconds."""

    def __init__(self):
        super().__init__()
        self.waits = set()

    def wait(self, timeout=None):
        self.waits.add(timeout)
        return super().wait(0.001)


def told(file):
    """What a file tells."""
    return Told(file.read_bytes().decode())  # A name may hold a CR.


@contextmanager
def node_exporter(folder):
    """A function that scrapes what Debian's node_exporter reads in the files of a folder."""
    if not shutil.which("prometheus-node-exporter"):
        pytest.skip("node_exporter is not installed (Debian: apt install prometheus-node-exporter)")
    address = f"127.0.0.1:{free_port()}"
    alone = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
    command = ["prometheus-node-exporter", *alone, f"--web.listen-address={address}"]
    with (folder.parent / "exporter.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def scrape():
        try:
            return requests.get(f"http://{address}/metrics", timeout=5).text
        except requests.ConnectionError:
            return ""

    try:
        wait_until(scrape)
        yield scrape
    finally:
        process.terminate()
        process.wait(10)


def promtool(*arguments, text=""):
    """What promtool says about what it checks."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return f"{done.stdout}{done.stderr}exit {done.returncode}"
