"""Lists of installs, as a user has them, and the places of a sandbox for them."""

from __future__ import annotations

import csv
import io

from jobs.sandbox.world import Place


def listing(installs, width=1):
    """A list of so many installs (`Loc0`, `Loc1` ..., their numbers of that width), or of those with these ids."""
    ids = [f"Loc{number:0{width}}" for number in range(installs)] if isinstance(installs, int) else installs
    return "location_id,name\n" + "".join(f"{account},Näme of {account}\n" for account in ids)


def listing_of_pairs(*rows):
    """A list of (location, company, access token, refresh token)."""
    text = io.StringIO()
    csv.writer(text).writerows([("location_id", "company_id", "access_token", "refresh_token"), *rows])
    return text.getvalue()


def of(*locations, company="CoA", behaviour="recovered"):
    """Sub-accounts of a company."""
    return {location: Place(behaviour, company_id=company) for location in locations}
