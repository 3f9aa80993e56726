"""Stores each pair through the session storage of HighLevel's own SDK (gohighlevel-api-client): a line in, a line out."""

import asyncio
import json
import sys

from app import storage  # The one that your app gives to HighLevel(session_storage=storage).

A_MINUTE = 60_000  # For clocks that differ: the storage counts from when it got the pair.


async def store(pair):
    storage.set_client_id(pair["client_id"])
    known = await storage.get_session(pair["resource_id"]) or {}
    if known.get("expire_at", 0) > pair["expires_at_ms"] + A_MINUTE:
        raise ValueError("the app has a newer pair")
    session = {name: pair[name] for name in ("access_token", "refresh_token", "token_type", "scope", "expires_in")}
    ids = {"companyId": pair["company_id"], "locationId": pair["location_id"], "userId": pair["user_id"]}
    await storage.set_session(pair["resource_id"], {**session, **ids, "userType": pair["user_type"]})
    if pair["pair_id"].startswith("test-"):  # From `recover deliver --test`, which leaves nothing behind.
        await storage.delete_session(pair["resource_id"])


async def main():
    await storage.init()
    for line in sys.stdin:
        pair = json.loads(line)
        answer = {"pair_id": pair["pair_id"]}
        try:
            await store(pair)
        except Exception as error:
            answer["error"] = str(error)
        print(json.dumps(answer), flush=True)
    await storage.disconnect()


asyncio.run(main())
