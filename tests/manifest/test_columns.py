"""Which column is which: by its header, by what the user says, or the list is refused before anything is sent."""

from __future__ import annotations

import json
import shlex

import pytest

from jobs.core.errors import UserError
from jobs.manifest.reader import open_manifest
from jobs.sandbox.world import Place

IDS = [f"Loc{n:017}" for n in range(20)]


def of_agencies(header, ids=IDS):
    """A list of sub-accounts of four agencies, whose column of location ids has this header."""
    rows = "".join(f'"{one}",Com{n // 5:017},Customer {n}\n' for n, one in enumerate(ids))
    return f"{header},company_id,name\n{rows}"


@pytest.fixture
def opened(tmp_path):
    def of(text, **chosen):
        path = tmp_path / "installs.csv"
        path.write_text(text, encoding="utf-8")
        return open_manifest(path, chosen)

    return of


def refused(opened, text, **chosen):
    with pytest.raises(UserError) as error:
        opened(text, **chosen)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "header",
    ["ghl_location_id", "Sub-Account ID", "location", "subaccount", "locationName", "SUB ACCOUNT", "Loc ID", "the key"],
)
def test_a_list_whose_location_column_is_not_known_is_refused_with_the_option_that_helps(opened, header):
    said = refused(opened, of_agencies(header))
    (option, value) = shlex.split(said.partition("use ")[2].partition(", or")[0])
    assert option == "--column"
    role, _, name = value.partition("=")
    manifest = opened(of_agencies(header), **{role: name})
    assert [row.account_id for row in manifest.rows()] == IDS
    assert manifest.columns == ("name",)
    assert "`--column location_id=`" in said
    agencies = list(opened(of_agencies(header), location_id="").rows())
    assert {row.account_id for row in agencies} == {row.company_id for row in agencies}


def test_a_list_of_no_known_id_at_all_is_refused_with_the_option_too(opened):
    assert "--column location_id=id" in refused(opened, "id,name\n" + "".join(f"{one},x\n" for one in IDS))
    assert "--column 'location_id=Sub Account'" in refused(opened, "Sub Account,name\nLocA,x\n")
    assert "--column location_id=NAME" in refused(opened, "id,name\n1,x\n")


@pytest.mark.parametrize("nothing", ["NULL", "nan", r"\N", "#N/A", "#REF!", "Err:502"])
def test_ids_beside_many_cells_that_hold_nothing_never_become_agencies(opened, nothing):
    text = of_agencies("key", [*IDS[:5], *[nothing] * 15])
    assert "its column 'key' seems to hold location ids: use --column location_id=key" in refused(opened, text)


@pytest.mark.parametrize("header", ["", " ", "\u00a0"])
def test_ids_in_a_column_without_a_name_never_become_agencies(opened, header):
    said = refused(opened, of_agencies(header))
    assert "has no column location_id, but its column 1, which has no name, seems to hold location ids: name it" in said
    assert all(row.account_id == row.company_id for row in opened(of_agencies(header), location_id="").rows())


@pytest.mark.parametrize(
    "header",
    [
        "Location,company_id,client_id,cause,owner,next_step,message,reinstall_url",
        "company_id,client_id,cause,owner,next_step,message,reinstall_url",
        "Location,company_id,client_id,status,access_token,refresh_token,route,recovered_at",
    ],
)
@pytest.mark.parametrize("chosen", [{}, {"location_id": ""}, {"location_id": "Location"}])
def test_a_report_of_the_job_whose_location_ids_have_no_name_is_refused(opened, header, chosen):
    text = f"{header}\n{IDS[0]},CoA,,,,,,\n"
    assert "is a report of the job, but has no column location_id: give" in refused(opened, text, **chosen)


@pytest.mark.parametrize(
    ("header", "cell"), [("location", "Berlin"), ("Number of locations", "12"), ("Location", ""), ("loc", "Bad, Ems")]
)
def test_agencies_with_a_column_that_only_speaks_of_locations_are_told_first_to_say_that_it_holds_none(
    opened, header, cell
):
    text = f"company_id,{header}\n" + "".join(f'Com{n:017},"{cell}"\n' for n in range(4))
    said = refused(opened, text)
    assert f"the name of its column {header!r} suggests location ids, although its cells do not look like ids" in said
    assert "use `--column location_id=` if the column holds something else, or --column " in said
    assert [row.account_id for row in opened(text, location_id="").rows()] == [f"Com{n:017}" for n in range(4)]


@pytest.mark.parametrize("text", [f"{IDS[0]}\n{IDS[1]}\n", f"{IDS[0]},Com1,x\n{IDS[1]},Com1,y\n", f"Bob;{IDS[0]}\n"])
def test_of_a_list_without_a_header_no_install_is_taken_for_one(opened, text):
    said = refused(opened, text)
    assert (
        "has no header: its first line holds ids, tokens or addresses: add a first line that names each column" in said
    )
    assert "--column" not in said


@pytest.mark.parametrize("kind", ["<html><body>", "\n <!DOCTYPE html>", '<?xml version="1.0"?>', "<TABLE>"])
def test_a_page_that_is_named_like_a_workbook_is_refused_without_its_content(opened, kind):
    said = refused(opened, f"{kind}<td>location_id</td><td>Anna Customer</td>\n", location_id="nowhere")
    assert said.partition("csv: ")[2].startswith("is HTML or XML, not a table: open it in a spreadsheet")
    assert "Anna" not in said


ANNA = [
    "acct 1",
    "Anna Customer",
    "eyJhbGciOiJIUzI1NiJ9.eyJsb2MiOiJMIn0.sigsigsig",
    "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c",
]


@pytest.mark.parametrize("cells", [ANNA, ANNA[:3], ANNA[:2], ["Anna Customer", "anna@example.com"]])
def test_what_a_line_in_place_of_the_header_holds_is_not_told(opened, cells):
    said = refused(opened, ",".join(cells) + "\n", location_id="ghl_location_id")
    assert not [cell for cell in cells if cell in said]
    assert "has no header: its first line holds" in said or "choose one of the names in its header" in said


@pytest.mark.parametrize(
    "header", ["location_id|company_id", '"location_id,company_id"', '"companyId;name"', "location_id company_id"]
)
def test_a_list_with_all_its_columns_in_one_is_refused_for_its_separator(opened, header):
    said = refused(opened, f"{header}\n{IDS[0]}|Com1\n")
    assert f"has only one column ({header.strip(chr(34))}): separate the cells with commas, semicolons or tabs" in said
    assert "--column" not in said


def test_a_location_column_without_a_cell_does_not_hide_the_ids_beside_it(opened):
    text = "location_id,company_id,key\n" + "".join(f",Com{n // 5:017},{one}\n" for n, one in enumerate(IDS))
    assert "--column location_id=key" in refused(opened, text)


@pytest.mark.parametrize(
    "text",
    [
        "company_id,name\nCoA,x\n",
        "company_id,plan_id\n" + "".join(f"Co{n},{IDS[0]}\n" for n in range(9)),
        "company_id,phone\n" + "".join(f"Co{n},4930123456789012345{n}\n" for n in range(9)),
        "location_id,company_id,contact\n" + "".join(f"Loc{n},CoA,{one}\n" for n, one in enumerate(IDS)),
        "company_id,contact\nCoA,the only one\nCoB," + IDS[0] + "\nCoC,x\n",
    ],
)
def test_lists_of_agencies_and_columns_beside_known_ones_are_not_refused(opened, text):
    assert list(opened(text).rows())


def test_any_column_may_be_named_and_what_it_takes_the_place_of_is_left_out(opened):
    text = "key,agency,app,old,location_id,access_token,n\nLocA,CoA,app-1,tok,internal,other,1\n"
    chosen = {"location_id": "KEY", "company_id": "agency", "client_id": "app", "refresh_token": "old"}
    manifest = opened(text, **chosen, access_token="")
    (row,) = manifest.rows()
    assert (row.account_id, row.company_id, row.client_id, row.cells) == ("LocA", "CoA", "app-1", ("1",))
    assert (row.access_token, row.refresh_token.reveal()) == (None, "tok")
    assert manifest.left_out == ("location_id", "access_token")


def test_of_two_columns_for_one_id_one_may_be_chosen(opened):
    text = "location_id,locationId,note\nLocA,LocB,x\n"
    assert "choose one with --column location_id=NAME" in refused(opened, text)
    assert [row.account_id for row in opened(text, location_id="locationId").rows()] == ["LocB"]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"location_id": "nowhere"}, "has no column 'nowhere', which --column names"),
        ({"location_id": "note"}, "has two columns 'note'"),
        ({"location_id": "a", "company_id": "a"}, "one column that --column names twice"),
        ({"location_id": ""}, "has no column location_id or company_id"),
    ],
)
def test_a_column_that_is_not_there_or_not_one_is_refused(opened, chosen, says):
    assert says in refused(opened, "location_id,a,note,note\nLocA,x,y,z\n", **chosen)


def test_in_a_report_of_the_job_the_columns_are_what_they_are_called(play):
    job = play(default="not_installed")
    manifest = job.manifest(of_agencies("ghl_location_id"))
    for option in ("location_id=ghl_location_id", "location_id="):
        assert job.run(manifest, "--column", "location_id=ghl_location_id").returncode == 1
        before = {row["location_id"] for row in job.table("failures.csv")}
        assert job("run", job.output / "failures.csv", "--column", option).returncode == 1
        assert {row["location_id"] for row in job.table("failures.csv")} == before == set(IDS)


def test_a_run_and_a_plan_take_the_option_refuse_without_it_and_show_it_in_the_next_command(play):
    job = play({IDS[0]: Place("not_installed")})
    manifest = job.manifest(of_agencies("Sub-Account ID"))
    for command in ("run", "plan"):
        done = job(command, manifest, "--output", job.output)
        assert (done.returncode, job.sandbox.seen) == (2, [])
        assert "--column 'location_id=Sub-Account ID'" in done.stderr
        assert not job.output.exists()
    option = ("--column", "location_id=Sub-Account ID")
    planned = job("plan", manifest, "--output", job.output, *option, "--json")
    assert json.loads(planned.stdout)["to_do"] == 20
    done = job.run(manifest, *option)
    assert (done.returncode, len(job.results())) == (1, 20)
    (command,) = [line for line in done.stdout.splitlines() if " --output " in line]
    assert shlex.split(command)[-2:] == list(option)


@pytest.mark.parametrize("option", ["location_id", "name=x", "=x", ""])
def test_an_option_that_names_no_id_is_refused(play, option):
    job = play()
    done = job.run(job.manifest("location_id\nLocA\n"), "--column", option)
    assert done.returncode == 2
    assert "must be ID=NAME, where ID is one of location_id, company_id" in done.stderr


def test_an_id_named_twice_is_refused(play):
    job = play()
    done = job.run(job.manifest("a,b\nLocA,x\n"), "--column", "location_id=a", "--column", "locationId=b")
    assert done.returncode == 2
    assert "--column names two columns for one id or token" in done.stderr


def test_a_run_and_a_plan_tell_what_is_odd_about_the_list_and_account_for_all_of_it(play):
    job = play()
    ids = [*IDS[:9], "LocOdd"]
    text = (
        "location_id,note\n"
        + "".join(f"{one},x\n" for one in ids)
        + f'location_id,note\n{IDS[10]},"open\n{IDS[11]},y\n'
    )
    manifest = job.manifest(text)
    done = job.run(manifest)
    planned = job("plan", manifest, "--output", job.folder / "other")
    for said in (
        "line 11 has a location id unlike all the others (20 letters and digits)",
        "line 12 equals the header and is skipped",
        "line 13 is torn by a quote",
    ):
        assert said in done.stderr
        assert said in planned.stdout
    assert (done.returncode, job.summary()["counts"]["rows"]) == (1, 12)
    (torn,) = job.table("failures.csv")
    assert torn["row_as_read"] == f'{IDS[10]},"open'


def test_a_header_alone_is_a_list_without_installs_which_is_said(play):
    job = play()
    done = job.run(job.manifest("location_id,name\n"))
    assert (done.returncode, job.sandbox.seen) == (0, [])
    assert "INPUT lists no installs" in done.stdout
