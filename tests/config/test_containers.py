"""The recipes for a run in a container, held against the job: what they name exists, and the image's files are enough for a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from msgspec.structs import fields

from jobs.cli import cli
from jobs.config.settings import Settings, load_settings
from jobs.core.errors import Exit
from jobs.sandbox.world import Place
from tests.helpers.job import PROJECT
from tests.helpers.lists import listing, of

RECIPES = PROJECT / "config" / "recipes"
README = (RECIPES / "README.md").read_text(encoding="utf-8")
IMAGE = (RECIPES / "Containerfile").read_text(encoding="utf-8")
PAGES = [PROJECT / "README.md", PROJECT / "Makefile", *PROJECT.glob("[a-z]*/**/README.md"), *RECIPES.iterdir()]
STEPS = [line.split(maxsplit=1) for line in IMAGE.replace("\\\n", "").splitlines() if re.match(r"[A-Z]+ ", line)]
LIST_OF_THE_DATABASE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[-1]


@pytest.fixture(scope="module")
def cronjob():
    return yaml.safe_load((RECIPES / "kubernetes-cronjob.yaml").read_text(encoding="utf-8"))["spec"]


@pytest.fixture(scope="module")
def pod(cronjob):
    return cronjob["jobTemplate"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.fixture(scope="module")
def task():
    (text,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    return json.loads(text)


def parsed(words):
    """The parameters of a command of the job, as click reads its words."""
    return cli.commands[words[0]].make_context(words[0], [*words[1:]]).params


def of_the_image(name):
    return [rest for step, rest in STEPS if step == name]


# -- what is named exists ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_setting_that_a_page_names_as_a_variable_exists(page):
    known = {f"RECOVERY_{one.name}__{key.name}".upper() for one in fields(Settings) for key in fields(one.type)}
    named = set(re.findall(r"\bRECOVERY_[A-Z]+__[A-Z_]+\b", page.read_text(encoding="utf-8")))
    assert named <= known


def test_the_pod_and_the_task_run_the_same_command_on_the_same_ledger(container, task):
    (in_ecs,) = task["containerDefinitions"]
    assert in_ecs["command"] == container["args"]
    assert parsed(container["args"])["output"].name == "affected"
    (in_cloud_run,) = re.findall(r"--args=(\S+)", README)
    assert parsed(in_cloud_run.split(",")).keys() == parsed(container["args"]).keys()


def test_the_settings_of_the_pod_are_valid(container):
    settings = load_settings(
        PROJECT / "config" / "recovery.toml", {one["name"]: one["value"] for one in container["env"]}, {}
    )
    assert settings.ledger.patience_seconds > Settings().ledger.patience_seconds


def test_a_pod_writes_to_the_volume_of_the_output_alone(pod, container):
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    given = parsed(container["args"])
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert mounts["input"] == {"name": "input", "mountPath": str(given["manifest"].parent), "readOnly": True}
    assert mounts["output"]["mountPath"] == str(given["output"].parent) == of_the_image("VOLUME")[0]
    assert "emptyDir" in volumes["output"]
    (state,) = (one["value"] for one in container["env"] if one["name"] == "XDG_STATE_HOME")
    assert f"XDG_STATE_HOME={state}" in of_the_image("ENV")
    assert Path(state).is_relative_to(mounts["output"]["mountPath"])


def test_no_secret_is_written_in_a_recipe_and_nobody_is_root(pod, container, task):
    assert container["envFrom"] == [{"secretRef": {"name": "highlevel-recovery"}}]
    assert {one["name"] for one in container["env"]} == {"XDG_STATE_HOME", "RECOVERY_LEDGER__PATIENCE_SECONDS"}
    (in_ecs,) = task["containerDefinitions"]
    assert {one["name"] for one in in_ecs["environment"]} <= {one["name"] for one in container["env"]}
    user = pod["securityContext"]
    assert user["runAsNonRoot"]
    assert of_the_image("USER") == [f"{user['runAsUser']}:{user['runAsGroup']}"] != ["0:0"]


def test_only_an_end_that_a_new_start_may_change_starts_a_pod_again(cronjob, pod):
    assert cronjob["concurrencyPolicy"] == "Forbid"
    assert pod["restartPolicy"] == "Never"
    drained, ended = cronjob["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert drained == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    again = {Exit.OK, Exit.HELD, Exit.SIGHUP, Exit.SIGINT, Exit.SIGTERM}
    assert ended["action"] == "FailJob"
    assert set(ended["onExitCodes"]["values"]) == {*Exit} - again
    # The last try must come after the lease of a killed pod is over: Kubernetes waits 10 s, 20 s, 40 s.
    tries = cronjob["jobTemplate"]["spec"]["backoffLimit"]
    assert sum(10 * 2**n for n in range(tries)) > Settings().ledger.lease_seconds


def test_a_pod_has_time_for_its_requests_and_reports_at_the_end(pod):
    assert pod["terminationGracePeriodSeconds"] > Settings().http.total_timeout_seconds + 60


# -- the image ---------------------------------------------------------------------------------------------------------


def test_the_image_takes_named_files_and_no_secret():
    taken = [Path(word) for rest in of_the_image("COPY") for word in rest.split()[:-1]]
    assert all((PROJECT / one).exists() for one in taken)
    for secret in (".env", "config/apps.toml", "data/installs/results.csv"):
        assert not any(Path(secret).is_relative_to(one) for one in taken), secret


def test_the_image_is_of_a_python_that_is_supported_and_starts_the_job():
    (base,) = of_the_image("FROM")
    assert re.fullmatch(r"docker\.io/library/python:3\.11-slim-\w+", base)
    assert json.loads(of_the_image("ENTRYPOINT")[0]) == ["recover"]
    locked, own = (rest for rest in of_the_image("RUN") if "pip install" in rest)
    assert "--require-hashes --requirement config/requirements.lock" in locked
    assert "--no-deps --no-build-isolation --no-index --editable ." in own


@pytest.fixture
def image():
    """A folder with the files of the image, which nobody may write to, and one for its output."""
    root = Path(tempfile.mkdtemp(prefix="image-"))
    try:
        for rest in of_the_image("COPY"):
            *files, place = rest.split()
            for file in map(Path, files):
                to = root / "app" / place / ("" if (PROJECT / file).is_dir() else file.name)
                to.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (PROJECT / file).is_dir() else shutil.copy
                copy(PROJECT / file, to)
        (root / "output").mkdir()
        for path in (root / "app", *(root / "app").rglob("*")):
            path.chmod(path.stat().st_mode & 0o555)
        yield root
    finally:
        subprocess.run(["chmod", "-R", "u+w", root], check=True)
        shutil.rmtree(root)


@pytest.fixture
def postgres(own_postgres):
    own_postgres.folder.chmod(0o711)
    return own_postgres


def run_in(image, arguments, environment):
    """Run the job of the image without a home, on its read-only files. Root gives up its right to write to them too."""
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    words = [str(word).replace("/output", f"{image}/output").replace("/input", str(image)) for word in arguments]
    wanted = {name: value for name, value in environment.items() if name.startswith(("HIGHLEVEL_", "RECOVERY_"))}
    wanted["XDG_STATE_HOME"] = f"{image}/output/state"
    packages = [place for place in sys.path if place and Path(place).resolve() != PROJECT]
    wanted |= {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(packages)}
    return subprocess.run(
        [*powerless, sys.executable, "-S", "-m", "jobs", *words],  # -S: the checkout is not among the packages.
        cwd=image / "app", env=wanted, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_files_of_the_image_run_read_only_and_the_next_container_goes_on(play, image, postgres, container):
    job = play()
    (image / "affected.csv").write_text(listing(5))
    environment = job.environment | {"RECOVERY_LEDGER__URL": postgres.url}
    before = sorted((image / "app").rglob("*"))
    first = run_in(image, [*container["args"], "--limit", "3"], environment)
    assert first.returncode == 4, first.stdout + first.stderr
    assert {file.name for file in (image / "output" / "affected").iterdir()} >= {"results.csv", "summary.json"}
    shutil.rmtree(image / "output" / "affected")
    shutil.rmtree(image / "output" / "state")
    second = run_in(image, container["args"], environment)
    assert second.returncode == 0, second.stdout + second.stderr
    assert [*re.findall(r".*\"level\": \"warning\".*", first.stderr + second.stderr)] == []
    assert len(job.calls("reconnect")) == 5
    assert sorted((image / "app").rglob("*")) == before


# -- Heroku ------------------------------------------------------------------------------------------------------------


def test_the_script_for_heroku_takes_the_list_from_the_apps_table_and_runs(play, image, postgres):
    job = play({"CoA": Place(level="Company")} | of("LocA"))
    postgres.execute(
        "create table connections (location_id text, company_id text, needs_reauth boolean)",
        "insert into connections values ('LocA', 'CoA', true), ('LocB', 'CoA', false), (null, 'CoA', true)",
    )
    (script,) = re.findall(r"```sh\n#!/bin/sh\n(.*?)```", README, re.DOTALL)
    (image / "list.py").write_text(LIST_OF_THE_DATABASE)
    (image / "nightly").write_text(
        script.replace("python ", f"{shlex.quote(sys.executable)} ")
        .replace("bin/list.py", str(image / "list.py"))
        .replace("/tmp/affected", f"{image}/output/affected")
        .replace("?sslmode=require", "&sslmode=prefer")
    )
    url = postgres.url.replace("postgresql+psycopg", "postgres")  # As Heroku writes it.
    done = subprocess.run(
        ["sh", image / "nightly"], cwd=PROJECT, env=job.environment | {"DATABASE_URL": url, "RECOVERY_LEDGER__SCHEMA": "heroku"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    listed = (image / "output" / "affected.csv").read_text().splitlines()
    assert listed == ["location_id,company_id", "LocA,CoA", ",CoA"]
    assert "LocA" in job.issued()
