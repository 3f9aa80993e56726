"""Takes each pair as a signed POST, for a store that only your app's own code can write (it encrypts tokens, for example).

DELIVERY_SECRET=whsec_... DATABASE=app.db flask --app receiver run --port 8484
"""

import os
import sqlite3
from contextlib import closing

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError

# Put your app's own code here. It encrypts what it stores.
NEWEST_WINS = """
INSERT INTO connections (resource_id, access_token, refresh_token, expires_at, needs_reauth)
VALUES (:resource_id, :access_token, :refresh_token, :expires_at_ms, 0)
ON CONFLICT (resource_id) DO UPDATE
SET access_token = excluded.access_token, refresh_token = excluded.refresh_token, expires_at = excluded.expires_at,
    needs_reauth = 0
WHERE connections.expires_at IS NULL OR connections.expires_at <= excluded.expires_at"""

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1_000_000
webhook = Webhook(os.environ["DELIVERY_SECRET"])


@app.post("/connections")
def take():
    try:
        message = webhook.verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError):
        return "", 401
    if message["type"] != "connection.recovered":
        return "", 204
    with closing(sqlite3.connect(os.environ["DATABASE"])) as database, database:
        stored = database.execute(NEWEST_WINS, message["data"]).rowcount
    return "", 204 if stored else 409
