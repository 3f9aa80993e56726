"""Which texts say that the app, or the account, is not there: by what they mean."""

from __future__ import annotations

import pytest

from jobs.core.absence import names_absence
from jobs.core.causes import diagnose
from jobs.core.model import Answer, Cause, Stage

NOT_THERE = [
    "No App installation found for the given location",
    "No installation found for this location",
    "No installation exists for company CoA",
    "No app installation was found for location ve9EPM428h8vShlRW1KT",
    "App is not installed on this location",
    "The app has not been installed for this company",
    "App isn't installed in location LocA",
    "This app was never installed by the company",
    "The app is no longer installed in this sub-account",
    "The application is not yet installed here",
    "The app was uninstalled from this location",
    "Installation not found",
    "installation_not_found",
    "LocationNotFound",
    "Location not found",
    "Location with id ve9.EPM_4 does not exist",
    "The location that you asked for doesn\u2019t exist",
    "No such location",
    "no such sub-account",
    "This location was deleted",
    "The sub account has been deleted",
    "Location has been removed from this agency",
    "Location no longer exists",
    "Company does not exist",
    "Company CoA could not be found",
    "Agency not found",
    "Could not find the company",
    "We were unable to find a location with this id",
    "Can't find that location",
    "Unknown location",
    "This company is unknown",
    "Company not recognised",
    "Not found: location LocA",
    "No app is installed in this location",
    "No app found for this company",
    "For this company the location was not found",
    "Bad Request | Installation not found | NOT_FOUND",
    "The request failed. Location LocA was not found.",
    "There is no record of this installation",
    "You don't have this app installed in the location",
    "No location with the given id was found",
    "The company was not found in our system",
]
NEAR_MISSES = [
    "Location is not active",
    "authorization code not found",
    "Authorization code not found for location LocA",
    "endpoint not found",
    "API endpoint has been removed",
    "This endpoint was removed in version v3",
    "Cannot POST /oauth/reconnect",
    "Not Found",
    "Page not found",
    "The user was not found",
    "User not found in this location",
    "Could not find a user of this company",
    "The location id is wrong. The file was not found",
    "The token does not have access to this location.",
    "The token is not authorized for this scope.",
    "No access to this location",
    "You have no permission for this company",
    "No location id provided",
    "No location was specified in the request",
    "Missing parameter: locationId",
    "Invalid parameter: companyId",
    "property locationId should not exist",
    "Location is not allowed to use this route",
    "`redirect_uri` is invalid",
    "Invalid client: client is invalid",
    "App not found",
    "version header was not found.",
    "Location token not found",
    "Company subscription does not exist",
    "This route is not yet supported by the IAM Service. Please update your IAM config.",
    "Too many requests for this location",
    "The time zone of this location was not found",
    "The webhook url for this location could not be found",
    "Custom value of the company does not exist",
    "",
]


@pytest.mark.parametrize("text", NOT_THERE)
def test_not_installed_is_known_by_what_a_text_means(text):
    assert names_absence(text)
    assert diagnose(Answer(Stage.RECONNECT, 400, text)) is Cause.NOT_INSTALLED
    assert diagnose(Answer(Stage.LOCATION_TOKEN, 403, text)) is Cause.NOT_INSTALLED
    assert diagnose(Answer(Stage.RECONNECT, 500, text)) is Cause.SERVER_ERROR


@pytest.mark.parametrize("text", NEAR_MISSES)
def test_a_near_miss_is_not_a_missing_installation(text):
    assert not names_absence(text)
    assert diagnose(Answer(Stage.RECONNECT, 400, text)) is not Cause.NOT_INSTALLED
