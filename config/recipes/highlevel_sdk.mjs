// Stores each pair through the session storage of HighLevel's own SDK (@gohighlevel/api-client): a line in, a line out.
import { createInterface } from "node:readline";
import { storage } from "./app.mjs"; // The one that your app gives to new HighLevel({ sessionStorage: storage }).

const A_MINUTE = 60_000; // For clocks that differ: the storage counts from when it got the pair.

async function store(pair) {
  storage.setClientId(pair.client_id);
  const known = await storage.getSession(pair.resource_id);
  if (known?.expire_at > pair.expires_at_ms + A_MINUTE) throw "the app has a newer pair";
  const { access_token, refresh_token, token_type, scope, expires_in } = pair;
  const ids = { companyId: pair.company_id, locationId: pair.location_id, userId: pair.user_id };
  const session = { access_token, refresh_token, token_type, scope, expires_in, ...ids, userType: pair.user_type };
  await storage.setSession(pair.resource_id, session);
  // From `recover deliver --test`, which leaves nothing behind.
  if (pair.pair_id.startsWith("test-")) await storage.deleteSession(pair.resource_id);
}

await storage.init();
for await (const line of createInterface({ input: process.stdin })) {
  const pair = JSON.parse(line);
  const error = await store(pair).then(() => null, String);
  console.log(JSON.stringify({ pair_id: pair.pair_id, error }));
}
await storage.disconnect();
