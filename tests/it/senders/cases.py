#!/usr/bin/env python3
"""Writes cases.json: one delivery of each preset, shaped as its sender sends it and signed here.

Nothing of Bellpull is used: HMACs are Python's, other signatures are the package `cryptography`'s.
    python3 tests/it/senders/cases.py > tests/it/senders/cases.json
Keys are made anew each time, so a run changes the signatures that are not HMACs.
"""

import base64
import hashlib
import hmac
import json
import urllib.parse
import zlib
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

NOW = 1_800_000_000
ORIGIN = "https://bell.example"
DATE = "2027-01-15T08:00:00Z"

cases = []


def case(preset, secret, body, headers, identity, event_type, *, verifier=None, query="", **more):
    if not isinstance(body, str):
        body = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    cases.append({
        "preset": preset, "secret": secret, "verifier": verifier, "query": query,
        "headers": headers, "body": body, "identity": identity, "event_type": event_type, **more,
    })


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def mac(key, text, digest="sha256"):
    key = key if isinstance(key, bytes) else key.encode()
    text = text if isinstance(text, bytes) else text.encode()
    return hmac.new(key, text, getattr(hashlib, digest))


def hexmac(key, text, digest="sha256"):
    return mac(key, text, digest).hexdigest()


def b64mac(key, text, digest="sha256"):
    return base64.b64encode(mac(key, text, digest).digest()).decode()


def url(preset, query=""):
    return f"{ORIGIN}/api/webhook/{preset}{query}"


JSON = {"Content-Type": "application/json"}
SECRET = "It's a Secret to Everybody"
RAW = b"0123456789abcdef0123456789abcdef"
WHSEC = "whsec_" + base64.b64encode(RAW).decode()


def pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


# --- code ----------------------------------------------------------------------------------------

body = dump({"action": "opened", "issue": {"number": 7, "title": "Größe ✓"},
             "repository": {"full_name": "octo/bell"}, "sender": {"login": "octo"}})
case("github", SECRET, body, {
    **JSON, "X-GitHub-Event": "issues", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "X-GitHub-Hook-ID": "292430182", "X-Hub-Signature": "sha1=" + hexmac(SECRET, body, "sha1"),
    "X-Hub-Signature-256": "sha256=" + hexmac(SECRET, body),
}, "x-github-delivery:72d3162e-cc78-11e3-81ab-4c9367dc0958", "issues.opened")

form = "payload=" + urllib.parse.quote_plus(body)
case("github", SECRET, form, {
    "Content-Type": "application/x-www-form-urlencoded", "X-GitHub-Event": "issues",
    "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0959",
    "X-Hub-Signature-256": "sha256=" + hexmac(SECRET, form).upper(),
}, "x-github-delivery:72d3162e-cc78-11e3-81ab-4c9367dc0959", "issues.opened")

body = dump({"ref": "refs/heads/main", "commits": []})
case("gitea", SECRET, body, {
    **JSON, "X-Gitea-Event": "push", "X-Gitea-Delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead473",
    "X-Gitea-Signature": hexmac(SECRET, body),
}, "x-gitea-delivery:f6266f16-1bf3-46a5-9ea4-602e06ead473", "push")

body = dump({"object_kind": "issue", "object_attributes": {"iid": 3, "action": "open"}})
case("gitlab", "a-token-of-my-own", body, {
    **JSON, "X-Gitlab-Event": "Issue Hook", "X-Gitlab-Token": "a-token-of-my-own",
    "X-Gitlab-Event-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e",
    "X-Gitlab-Webhook-UUID": "02affd2d-2cba-4033-917d-ec22d5dc4b38",
    "Idempotency-Key": "f5e5f430-f57b-4e6e-9fac-d9128cd7232f",
}, "idempotency-key:f5e5f430-f57b-4e6e-9fac-d9128cd7232f", "issue.open", body_is_signed=False)
case("gitlab", WHSEC, body, {
    **JSON, "X-Gitlab-Event": "Issue Hook", "webhook-id": "f5e5f430-f57b-4e6e-9fac-d9128cd72330",
    "webhook-timestamp": str(NOW), "webhook-signature":
        "v1," + b64mac(RAW, f"f5e5f430-f57b-4e6e-9fac-d9128cd72330.{NOW}.{body}"),
}, "webhook-id:f5e5f430-f57b-4e6e-9fac-d9128cd72330", "issue.open", stale=True)

body = dump({"push": {"changes": []}, "repository": {"full_name": "team/bell"}})
case("bitbucket", SECRET, body, {
    **JSON, "X-Event-Key": "repo:push", "X-Request-UUID": "9b7b9f0a-1c1f-4f4b-8c0e-2f6e1f6f0a11",
    "X-Hook-UUID": "{a1b2}", "X-Attempt-Number": "1",
    "X-Hub-Signature": "sha256=" + hexmac(SECRET, body),
}, "x-request-uuid:9b7b9f0a-1c1f-4f4b-8c0e-2f6e1f6f0a11", "repo:push")

body = dump({"eventKey": "pr:opened", "pullRequest": {"id": 11}})
case("bitbucket-dc", SECRET, body, {
    **JSON, "X-Event-Key": "pr:opened", "X-Request-Id": "c1d2",
    "X-Hub-Signature": "sha256=" + hexmac(SECRET, body),
}, "x-request-id:c1d2", "pr:opened")

body = dump({"id": "uev_1", "type": "deployment.succeeded", "payload": {"team": {"id": "t"}}})
case("vercel", SECRET, body, {**JSON, "x-vercel-signature": hexmac(SECRET, body, "sha1")},
     "/id:uev_1", "deployment.succeeded")


def jwt(key, claims, algorithm="HS256", digest="sha256"):
    part = lambda value: base64.urlsafe_b64encode(dump(value).encode()).rstrip(b"=").decode()
    signed = part({"alg": algorithm, "typ": "JWT"}) + "." + part(claims)
    signature = mac(key, signed, digest).digest()
    return signed + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


body = dump({"id": "5f1b", "state": "ready", "name": "bell"})
token = jwt(SECRET, {"iss": "netlify", "sha256": hashlib.sha256(body.encode()).hexdigest()})
case("netlify", SECRET, body, {**JSON, "X-Webhook-Signature": token, "X-Netlify-Event": "deploy_created"},
     '/id + /state:["5f1b","ready"]', "deploy_created")

body = dump({"id": "3888f21b-eaa7-38e3-8f3d-75a63bba8895", "type": "workflow-completed"})
case("circleci", SECRET, body, {
    **JSON, "circleci-event-type": "workflow-completed",
    "circleci-signature": f"v1={hexmac(SECRET, body)},v2={'0' * 64}",
}, "/id:3888f21b-eaa7-38e3-8f3d-75a63bba8895", "workflow-completed")

# --- work ----------------------------------------------------------------------------------------

body = dump({"type": "zen:event-type:ticket.created", "id": "e1", "detail": {"id": "35436"}})
case("zendesk", SECRET, body, {
    **JSON, "X-Zendesk-Webhook-Id": "01F1KRFQ6BCG29CNWFR60NK5FN", "X-Zendesk-Account-Id": "123",
    "X-Zendesk-Webhook-Invocation-Id": "8350205582",
    "X-Zendesk-Webhook-Signature-Timestamp": DATE,
    "X-Zendesk-Webhook-Signature": b64mac(SECRET, DATE + body),
}, "x-zendesk-webhook-invocation-id:8350205582", "zen:event-type:ticket.created")

body = dump({"action": "create", "type": "Issue", "data": {"id": "2174add1", "title": "Bell"},
             "webhookTimestamp": NOW * 1000, "webhookId": "000042e3"})
case("linear", SECRET, body, {
    **JSON, "Linear-Delivery": "234d1a4e-b617-4388-90fe-adc3633d6b72", "Linear-Event": "Issue",
    "Linear-Signature": hexmac(SECRET, body),
}, "linear-delivery:234d1a4e-b617-4388-90fe-adc3633d6b72", "Issue.create", stale=True)

body = dump({"webhookEvent": "jira:issue_updated", "issue_event_type_name": "issue_commented",
             "issue": {"key": "BELL-1"}})
case("jira", SECRET, body, {
    **JSON, "X-Atlassian-Webhook-Identifier": "5a1b", "X-Hub-Signature": "sha256=" + hexmac(SECRET, body),
}, "x-atlassian-webhook-identifier:5a1b", "jira:issue_updated.issue_commented")

body = dump([{"eventId": 531833541, "subscriptionId": 1, "subscriptionType": "contact.creation",
              "occurredAt": 1462216307945, "attemptNumber": 0, "objectId": 123},
             {"eventId": 531833542, "subscriptionId": 1, "subscriptionType": "contact.creation",
              "occurredAt": 1462216307946, "attemptNumber": 0, "objectId": 124}])
signed = f"POST{url('hubspot')}?a=b:/c{body}{NOW * 1000}"
case("hubspot", SECRET, body, {
    **JSON, "X-HubSpot-Request-Timestamp": str(NOW * 1000), "X-HubSpot-Signature-v3": b64mac(SECRET, signed),
}, '/*/eventId + /*/subscriptionType + /*/occurredAt:["[\\"531833541\\",\\"531833542\\"]",'
   '"[\\"contact.creation\\",\\"contact.creation\\"]","[\\"1462216307945\\",\\"1462216307946\\"]"]',
     "contact.creation", query="?a=b%3A%2Fc", stale=True)

body = dump({"id": "367cba44-b6f3-4c92-81e7-6a2e9659efd4", "type": "page.created", "attempt_number": 1})
case("notion", "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl", body, {
    **JSON, "X-Notion-Signature":
        "sha256=" + hexmac("secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl", body),
}, "/id:367cba44-b6f3-4c92-81e7-6a2e9659efd4", "page.created")

body = dump({"events": [{"user": {"gid": "1"}, "created_at": "2027-01-15T07:59:59.000Z",
                         "action": "changed", "resource": {"gid": "12", "resource_type": "task"}}]})
case("asana", SECRET, body, {**JSON, "X-Hook-Signature": hexmac(SECRET, body)},
     '/events/*/created_at + /events/*/action + /events/*/resource/gid:'
     '["[\\"2027-01-15T07:59:59.000Z\\"]","[\\"changed\\"]","[\\"12\\"]"]', "task.changed")

body = dump({"event": {"type": "update_column_value", "triggerUuid": "b5ed2e17", "pulseId": 5}})
token = jwt(SECRET, {"accountId": 1, "userId": 2, "aud": url("monday"), "iat": NOW, "exp": NOW + 300})
case("monday", SECRET, body, {**JSON, "Authorization": token}, "/event/triggerUuid:b5ed2e17",
     "update_column_value", stale=True, body_is_signed=False)

body = dump({"list_folder": {"accounts": ["dbid:AAH4f99T0taONIb"]}})
case("dropbox", SECRET, body, {**JSON, "X-Dropbox-Signature": hexmac(SECRET, body)}, "body:", None)

body = dump({"action": {"id": "51f9424bcd6e040f3c002412", "type": "updateCard"}, "model": {}})
case("trello", SECRET, body, {**JSON, "X-Trello-Webhook": b64mac(SECRET, body + url("trello"), "sha1")},
     "/action/id:51f9424bcd6e040f3c002412", "updateCard")

body = dump({"type": "webhook_event", "trigger": "FILE.UPLOADED", "source": {"id": "73835521473"}})
case("box", "SamplePrimaryKey", body, {
    **JSON, "box-delivery-id": "f96bb54b-ee16-4fc5-aa65-8c2d9e5b546f",
    "box-delivery-timestamp": DATE, "box-signature-primary": b64mac("SamplePrimaryKey", body + DATE),
    "box-signature-secondary": b64mac("SampleSecondaryKey", body + DATE), "box-signature-version": "1",
    "box-signature-algorithm": "HmacSHA256",
}, "box-delivery-id:f96bb54b-ee16-4fc5-aa65-8c2d9e5b546f", "FILE.UPLOADED", stale=True)

body = dump({"base": {"id": "app00000000000000"}, "webhook": {"id": "ach00000000000000"},
             "timestamp": "2027-01-15T08:00:00.000Z"})
case("airtable", base64.b64encode(RAW).decode(), body, {
    **JSON, "X-Airtable-Content-MAC": "hmac-sha256=" + hexmac(RAW, body),
}, '/webhook/id + /timestamp:["ach00000000000000","2027-01-15T08:00:00.000Z"]', None)

# --- messages ------------------------------------------------------------------------------------

body = dump({"token": "x", "team_id": "T1", "event": {"type": "app_mention", "text": "bell?"},
             "type": "event_callback", "event_id": "Ev08MFMKH6", "event_time": NOW})
case("slack", SECRET, body, {
    **JSON, "X-Slack-Request-Timestamp": str(NOW),
    "X-Slack-Signature": "v0=" + hexmac(SECRET, f"v0:{NOW}:{body}"),
}, "/event_id:Ev08MFMKH6", "app_mention", stale=True)
body = "command=%2Fbell&text=ring+it&trigger_id=13345224609.738474920&team_id=T1"
case("slack", SECRET, body, {
    "Content-Type": "application/x-www-form-urlencoded", "X-Slack-Request-Timestamp": str(NOW),
    "X-Slack-Signature": "v0=" + hexmac(SECRET, f"v0:{NOW}:{body}"),
}, "/trigger_id:13345224609.738474920", "/bell", stale=True)

key = ed25519.Ed25519PrivateKey.generate()
public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
body = dump({"version": 1, "application_id": "1234560123453231555", "type": 1,
             "event": {"type": "APPLICATION_AUTHORIZED", "timestamp": "2027-01-15T08:00:00", "data": {}}})
case("discord", public.hex(), body, {
    **JSON, "X-Signature-Timestamp": str(NOW),
    "X-Signature-Ed25519": key.sign(f"{NOW}{body}".encode()).hex(),
}, '/application_id + /event/type + /event/timestamp:'
   '["1234560123453231555","APPLICATION_AUTHORIZED","2027-01-15T08:00:00"]',
     "APPLICATION_AUTHORIZED", status=204)

body = dump({"update_id": 10000, "message": {"message_id": 1365, "text": "/start"}})
case("telegram", "A-token_1", body, {**JSON, "X-Telegram-Bot-Api-Secret-Token": "A-token_1"},
     "/update_id:10000", None, body_is_signed=False)

body = json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [
    {"field": "messages", "value": {"messages": [{"id": "wamid.HBgL", "text": {"body": "Größe"}}]}}]}]})
case("meta", SECRET, body, {**JSON, "X-Hub-Signature-256": "sha256=" + hexmac(SECRET, body)},
     '/entry/*/changes/*/value/messages/*/id:["wamid.HBgL"]', "whatsapp_business_account.messages")

body = dump({"destination": "U1", "events": [{"type": "message", "webhookEventId": "01FZ74A0TDDPYRVKNK77XKC3ZR"}]})
case("line", SECRET, body, {**JSON, "X-Line-Signature": b64mac(SECRET, body)},
     '/events/*/webhookEventId:["01FZ74A0TDDPYRVKNK77XKC3ZR"]', "message")

fields = {"MessageSid": "SM1", "From": "+14158675309", "Body": "Größe & mehr", "SmsStatus": "received"}
body = urllib.parse.urlencode(fields)
signed = url("twilio", "?a=1") + "".join(name + fields[name] for name in sorted(fields))
case("twilio", "12345", body, {
    "Content-Type": "application/x-www-form-urlencoded", "I-Twilio-Idempotency-Token": "e5b1",
    "X-Twilio-Signature": b64mac("12345", signed, "sha1"),
}, "i-twilio-idempotency-token:e5b1", "received", query="?a=1")
body = dump({"CallSid": "CA1", "CallStatus": "completed"})
query = "?bodySHA256=" + hashlib.sha256(body.encode()).hexdigest()
case("twilio", "12345", body, {
    **JSON, "X-Twilio-Signature": b64mac("12345", f"{ORIGIN}:443/api/webhook/twilio{query}", "sha1"),
}, '/CallSid + /CallStatus:["CA1","completed"]', "completed", query=query)

key = ec.generate_private_key(ec.SECP256R1())
public = key.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
body = dump([{"email": "a@b.example", "event": "delivered", "sg_event_id": "ZGVsaXZlcmVk"}]) + "\r\n"
signature = key.sign(f"{NOW}{body}".encode(), ec.ECDSA(hashes.SHA256()))
case("sendgrid", base64.b64encode(public).decode(), body, {
    **JSON, "X-Twilio-Email-Event-Webhook-Timestamp": str(NOW),
    "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
}, '/*/sg_event_id:["ZGVsaXZlcmVk"]', "delivered")

token = "c6bc84e4cfb6" * 4
body = dump({"signature": {"timestamp": str(NOW), "token": token, "signature": hexmac(SECRET, f"{NOW}{token}")},
             "event-data": {"id": "G9Bn5sl1TC6nu79C8C0bwg", "event": "opened"}})
case("mailgun", SECRET, body, JSON, "/event-data/id:G9Bn5sl1TC6nu79C8C0bwg", "opened",
     body_is_signed=False)

body = dump({"type": "notification_event", "id": "notif_c8a4e1b0", "topic": "conversation.user.created"})
case("intercom", SECRET, body, {**JSON, "X-Hub-Signature": "sha1=" + hexmac(SECRET, body, "sha1")},
     "/id:notif_c8a4e1b0", "conversation.user.created")

body = dump({"event": "meeting.started", "event_ts": NOW * 1000,
             "payload": {"object": {"uuid": "4444AAAiAAAAAiAiAiiAii==", "id": "94"}}})
case("zoom", SECRET, body, {
    **JSON, "x-zm-request-timestamp": str(NOW), "x-zm-signature": "v0=" + hexmac(SECRET, f"v0:{NOW}:{body}"),
}, f'/event + /event_ts + /payload/object/uuid:["meeting.started","{NOW * 1000}","4444AAAiAAAAAiAiAiiAii=="]',
     "meeting.started")

body = dump({"subscription": {"id": "f1c2", "type": "stream.online"}, "event": {"broadcaster_user_id": "1"}})
message, at = "befa7b53-d79d-478f-86b9-120f112b044e", "2027-01-15T08:00:00.123456789Z"
case("twitch", SECRET, body, {
    **JSON, "Twitch-Eventsub-Message-Id": message, "Twitch-Eventsub-Message-Timestamp": at,
    "Twitch-Eventsub-Message-Type": "notification",
    "Twitch-Eventsub-Message-Signature": "sha256=" + hexmac(SECRET, message + at + body),
}, f"twitch-eventsub-message-id:{message}", "stream.online", stale=True)

body = dump({"for_user_id": "2244994945", "tweet_create_events": [{"id_str": "1", "text": "hi"}]})
case("x", SECRET, body, {
    **JSON, "X-Twitter-Webhooks-Signature": "sha256=" + b64mac(SECRET, body),
}, "body:", None)

# --- operations ----------------------------------------------------------------------------------

body = dump({"action": "created", "data": {"issue": {"id": "1170820242"}}})
case("sentry", SECRET, body, {
    **JSON, "Request-ID": "6f1d", "Sentry-Hook-Resource": "issue", "Sentry-Hook-Timestamp": str(NOW),
    "Sentry-Hook-Signature": hexmac(SECRET, body),
}, "request-id:6f1d", "issue.created")

body = dump({"event": {"id": "01BWDWL3NYY7LUFPZCC28QUCMK", "event_type": "incident.triggered"}})
case("pagerduty", SECRET, body, {
    **JSON, "X-Webhook-Id": "w1",
    "X-PagerDuty-Signature": f"v1={hexmac('another', body)},v1={hexmac(SECRET, body)}",
}, "/event/id:01BWDWL3NYY7LUFPZCC28QUCMK", "incident.triggered")

alerts = {"version": "4", "groupKey": "{}:{alertname=\"Up\"}", "status": "firing", "alerts": [
    {"status": "firing", "fingerprint": "f1", "startsAt": DATE, "labels": {"alertname": "Up"}}]}
identity = ('/groupKey + /status + /alerts/*/fingerprint + /alerts/*/status + /alerts/*/startsAt:'
            '["{}:{alertname=\\"Up\\"}","firing","[\\"f1\\"]","[\\"firing\\"]","[\\"2027-01-15T08:00:00Z\\"]"]')
body = dump(alerts)
case("grafana", SECRET, body, {**JSON, "X-Grafana-Alerting-Signature": hexmac(SECRET, body)}, identity, "firing")
case("grafana", SECRET, body, {
    **JSON, "X-Grafana-Alerting-Signature": hexmac(SECRET, f"{NOW}:{body}"), "X-Grafana-Time": str(NOW),
}, identity, "firing", stale=True, verifier={
    "template": "{timestamp}:{body}", "timestamp": {"header": "X-Grafana-Time", "tolerance_seconds": 300}})
case("alertmanager", SECRET, body, {**JSON, "Authorization": f"Bearer {SECRET}"}, identity, "firing",
     body_is_signed=False)

body = dump({"id": "5723", "event_type": "query_alert_monitor", "transition": "Triggered"})
case("datadog", SECRET, body, {**JSON, "X-Webhook-Secret": SECRET},
     '/id + /transition:["5723","Triggered"]', "query_alert_monitor", body_is_signed=False)

# --- payments and shops --------------------------------------------------------------------------

body = dump({"id": "evt_1NG8Du2eZvKYlo2CUI79vXWy", "object": "event", "type": "invoice.paid"})
right = hexmac("whsec_not_base64!", f"{NOW}.{body}")
case("stripe", "whsec_not_base64!", body, {
    **JSON, "Stripe-Signature": f"t={NOW},v1={'0' * 64},v1={right},v0={'0' * 64}",
}, "/id:evt_1NG8Du2eZvKYlo2CUI79vXWy", "invoice.paid", stale=True)

body = dump({"id": 820982911946154508, "email": "jon@example.com"})
case("shopify", SECRET, body, {
    **JSON, "X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": "bell.myshopify.com",
    "X-Shopify-Event-Id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
    "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    "X-Shopify-Hmac-Sha256": b64mac(SECRET, body),
}, 'x-shopify-event-id + x-shopify-topic + x-shopify-shop-domain:'
   '["98880550-7158-44d4-b7cd-2c97c8a091b5","orders/create","bell.myshopify.com"]', "orders/create")

body = dump({"merchant_id": "M1", "type": "payment.created", "event_id": "13b867cf-db3d-4b1c-90b6-2f32a9d78124"})
case("square", SECRET, body, {
    **JSON, "x-square-hmacsha256-signature": b64mac(SECRET, url("square") + body),
}, "/event_id:13b867cf-db3d-4b1c-90b6-2f32a9d78124", "payment.created")

body = dump({"event_id": "evt_01hv8wptq8987qeep44cyrewp9", "event_type": "transaction.paid"})
paddle = "pdl_ntfset_01hs0t3tw21j988db1pam5xg8m_GrOWLNef+vmtjJYq4mSnHNzvc8uWoJ1I"
case("paddle", paddle, body, {
    **JSON, "Paddle-Signature": f"ts={NOW};h1={hexmac(paddle, f'{NOW}:{body}')}",
}, "/event_id:evt_01hv8wptq8987qeep44cyrewp9", "transaction.paid", stale=True)

body = dump({"meta": {"event_name": "order_created"}, "data": {
    "type": "orders", "id": "1", "attributes": {"updated_at": "2027-01-15T08:00:00.000000Z"}}})
case("lemon-squeezy", SECRET, body, {
    **JSON, "X-Event-Name": "order_created", "X-Signature": hexmac(SECRET, body),
}, '/data/type + /data/id + /meta/event_name + /data/attributes/updated_at:'
   '["orders","1","order_created","2027-01-15T08:00:00.000000Z"]', "order_created")

adyen = RAW.hex().upper()
item = {"pspReference": "7914073381342284", "merchantAccountCode": "TestMerchant",
        "merchantReference": "TestPayment-1407325143704", "amount": {"value": 1130, "currency": "EUR"},
        "eventCode": "AUTHORISATION", "success": "true"}
signed = "7914073381342284::TestMerchant:TestPayment-1407325143704:1130:EUR:AUTHORISATION:true"
item["additionalData"] = {"hmacSignature": b64mac(RAW, signed)}
case("adyen", adyen, {"live": "false", "notificationItems": [{"NotificationRequestItem": item}]}, JSON,
     '/notificationItems/*/NotificationRequestItem/pspReference + '
     '/notificationItems/*/NotificationRequestItem/eventCode + '
     '/notificationItems/*/NotificationRequestItem/success:'
     '["[\\"7914073381342284\\"]","[\\"AUTHORISATION\\"]","[\\"true\\"]"]',
     "AUTHORISATION", body_is_signed=False)
body = dump({"type": "balancePlatform.transfer.created", "data": {"id": "1W1UG35U8A9J5ZLG"}})
case("adyen", adyen, body, {**JSON, "HmacSignature": b64mac(RAW, body)}, "body:",
     "balancePlatform.transfer.created")

body = dump({"entity": "event", "event": "payment.authorized", "payload": {}})
case("razorpay", SECRET, body, {
    **JSON, "X-Razorpay-Event-Id": "Gb5kMCdcAZ8jJ8", "X-Razorpay-Signature": hexmac(SECRET, body),
}, "x-razorpay-event-id:Gb5kMCdcAZ8jJ8", "payment.authorized")

body = dump({"id": 727, "status": "processing"})
case("woocommerce", SECRET, body, {
    **JSON, "X-WC-Webhook-Topic": "order.created", "X-WC-Webhook-Delivery-ID": "c1a2",
    "X-WC-Webhook-ID": "5", "X-WC-Webhook-Signature": b64mac(SECRET, body),
}, "x-wc-webhook-delivery-id:c1a2", "order.created")

body = dump({"event_id": "LtWXD3crgy", "event_type": "form_response", "form_response": {}})
case("typeform", SECRET, body, {**JSON, "Typeform-Signature": "sha256=" + b64mac(SECRET, body)},
     "/event_id:LtWXD3crgy", "form_response")

body = dump({"event": "invitee.created", "created_at": "2027-01-15T08:00:00.000000Z",
             "payload": {"uri": "https://api.calendly.com/scheduled_events/A/invitees/B"}})
case("calendly", SECRET, body, {
    **JSON, "Calendly-Webhook-Signature": f"t={NOW},v1={hexmac(SECRET, f'{NOW}.{body}')}",
}, '/payload/uri + /event + /created_at:["https://api.calendly.com/scheduled_events/A/invitees/B",'
   '"invitee.created","2027-01-15T08:00:00.000000Z"]', "invitee.created", stale=True)

# --- clouds --------------------------------------------------------------------------------------

case("microsoft-graph", "a-client-state", {"value": [
    {"id": "lsgTZMr9KwAAA", "subscriptionId": "s1", "clientState": "a-client-state",
     "changeType": "updated", "resource": "Users/u/Messages/m"}]}, JSON,
     '/value/*/id:["lsgTZMr9KwAAA"]', "updated", body_is_signed=False)

body = dump([{"id": "2d1781af", "eventType": "Microsoft.Storage.BlobCreated", "subject": "/x"}])
case("event-grid", "a-secret-in-the-url", body, {**JSON, "aeg-event-type": "Notification"},
     '/*/id:["2d1781af"]', "Microsoft.Storage.BlobCreated", query="?code=a-secret-in-the-url",
     body_is_signed=False)

case("cloudevents", SECRET, {"a": 1}, {
    **JSON, "Authorization": f"Bearer {SECRET}", "ce-id": "A234-1234-1234", "ce-source": "/mycontext",
    "ce-type": "com.example.someevent", "ce-specversion": "1.0",
}, 'ce-source + ce-id:["/mycontext","A234-1234-1234"]', "com.example.someevent", body_is_signed=False)
case("cloudevents", "a-token", {"specversion": "1.0", "id": "A1", "source": "/c", "type": "t"}, {
    "Content-Type": "application/cloudevents+json"}, '/source + /id:["/c","A1"]', "t",
     query="?access_token=a-token", body_is_signed=False)

case("okta", SECRET, {"eventType": "com.okta.event_hook", "eventId": "b5a188b9-5ece-4636",
                      "data": {"events": [{"uuid": "ed0e", "eventType": "user.session.start"}]}},
     {**JSON, "Authorization": SECRET}, "/eventId:b5a188b9-5ece-4636", "user.session.start",
     body_is_signed=False)

# --- the specification ---------------------------------------------------------------------------

body = dump({"type": "contact.created", "timestamp": DATE, "data": {}})
for preset, prefix in [("standard-webhooks", "webhook"), ("svix", "svix")]:
    right = b64mac(RAW, f"msg_1.{NOW}.{body}")
    case(preset, WHSEC, body, {
        **JSON, f"{prefix}-id": "msg_1", f"{prefix}-timestamp": str(NOW),
        f"{prefix}-signature": f"v1,{b64mac(b'x', body)} v1a,xyz v1,{right}",
    }, f"{prefix}-id:msg_1", "contact.created", stale=True)
key = ed25519.Ed25519PrivateKey.generate()
public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
signature = base64.b64encode(key.sign(f"msg_2.{NOW}.{body}".encode())).decode()
case("standard-webhooks", "whpk_" + base64.b64encode(public).decode(), body, {
    **JSON, "webhook-id": "msg_2", "webhook-timestamp": str(NOW),
    "webhook-signature": f"v1,{b64mac(RAW, body)} v1a,{signature}",
}, "webhook-id:msg_2", "contact.created", stale=True)

# --- plain ---------------------------------------------------------------------------------------

basic = base64.b64encode(f"ring:{SECRET}".encode()).decode()
plain = [
    ("bearer", {"Authorization": f"Bearer {SECRET}"}, None),
    ("basic", {"Authorization": f"Basic {basic}"}, {"username": "ring"}),
    ("header", {"X-Webhook-Secret": SECRET}, None),
]
for preset, headers, verifier in plain:
    case(preset, SECRET, {"type": "rung"}, {**JSON, "webhook-id": "1", **headers}, "webhook-id:1",
         "rung", verifier=verifier, body_is_signed=False)
body = dump({"type": "rung"})
case("hmac", SECRET, body, {**JSON, "webhook-id": "2", "X-Signature": hexmac(SECRET, body)},
     "webhook-id:2", "rung")
case("hmac", RAW.hex(), body, {
    **JSON, "webhook-id": "3", "X-Sign": base64.b64encode(mac(RAW, body, "sha512").digest()).decode(),
}, "webhook-id:3", "rung", verifier={
    "header": "X-Sign", "algorithm": "sha512", "encoding": "base64", "secret_encoding": "hex"})
key = ed25519.Ed25519PrivateKey.generate()
case("hmac", pem(key), body, {**JSON, "webhook-id": "4", "X-Sign": key.sign(body.encode()).hex()},
     "webhook-id:4", "rung", verifier={"type": "ed25519", "header": "X-Sign"})

# --- certificates --------------------------------------------------------------------------------

BEGIN, END = datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2099, 1, 1, tzinfo=timezone.utc)


def named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(key, name, issuer, issuer_key, *, alternatives=(), ca=False, begin=BEGIN, end=END):
    built = (x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer))
             .public_key(key.public_key()).serial_number(x509.random_serial_number())
             .not_valid_before(begin).not_valid_after(end)
             .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True))
    if alternatives:
        names = x509.SubjectAlternativeName([x509.DNSName(it) for it in alternatives])
        built = built.add_extension(names, critical=False)
    built = built.sign(issuer_key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def private(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()).decode()


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def rsa_sign(key, text, digest):
    return base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), digest)).decode()


authority, host, sns, paypal = rsa_key(), rsa_key(), rsa_key(), rsa_key()
PAYPAL = "messageverificationcerts.paypal.com"
HOSTS = ["sns.us-east-1.amazonaws.com", "api.paypal.com", "api.sandbox.paypal.com"]
files = {
    "/SimpleNotificationService-0a1b.pem": certificate(sns, "sns.amazonaws.com", "sns.amazonaws.com", sns),
    "/SimpleNotificationService-past.pem": certificate(
        sns, "sns.amazonaws.com", "sns.amazonaws.com", sns, end=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    "/v1/notifications/certs/CERT-1": certificate(
        paypal, PAYPAL, "Authority", authority, alternatives=[PAYPAL]),
    "/v1/notifications/certs/CERT-common-name": certificate(paypal, PAYPAL, "Authority", authority),
    "/v1/notifications/certs/CERT-self-signed": certificate(paypal, PAYPAL, PAYPAL, paypal),
    "/v1/notifications/certs/CERT-other": certificate(
        paypal, "evil.example", "Authority", authority, alternatives=["evil.example"]),
    "/v1/notifications/certs/CERT-past": certificate(
        paypal, PAYPAL, "Authority", authority, end=datetime(2026, 1, 1, tzinfo=timezone.utc)),
}

topic = "arn:aws:sns:us-east-1:123456789012:bells"
lines = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
for version, digest, more in [("1", hashes.SHA1(), {}), ("2", hashes.SHA256(), {"Subject": "Größe"})]:
    message = {
        "Type": "Notification", "MessageId": f"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf32{version}",
        "TopicArn": topic, **more, "Message": "{\"bell\":\"rung\"} " * 60,
        "Timestamp": DATE, "SignatureVersion": version,
        "SigningCertURL": f"https://{HOSTS[0]}/SimpleNotificationService-0a1b.pem",
    }
    signed = "".join(f"{name}\n{message[name]}\n" for name in lines if name in message)
    message["Signature"] = rsa_sign(sns, signed, digest)
    case("sns", topic, message, {"Content-Type": "text/plain; charset=UTF-8"},
         f"/MessageId:{message['MessageId']}", "Notification")

body = dump({"id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": {"id": "7"}})
transmission = "69cd13f0-d67a-11e5-baa3-778b53f4ae55"
case("paypal", "1JE4291016473214C", body, {
    **JSON, "PAYPAL-TRANSMISSION-ID": transmission, "PAYPAL-TRANSMISSION-TIME": DATE,
    "PAYPAL-AUTH-ALGO": "SHA256withRSA", "PAYPAL-CERT-URL": f"https://{HOSTS[1]}/v1/notifications/certs/CERT-1",
    "PAYPAL-TRANSMISSION-SIG": rsa_sign(
        paypal, f"{transmission}|{DATE}|1JE4291016473214C|{zlib.crc32(body.encode())}", hashes.SHA256()),
}, "/id:WH-1", "PAYMENT.CAPTURE.COMPLETED")

outside = {
    "authority": certificate(authority, "Authority", "Authority", authority, ca=True),
    "certificate": certificate(host, HOSTS[0], "Authority", authority, alternatives=HOSTS),
    "key": private(host), "files": files, "sns": private(sns), "paypal": private(paypal),
}
print(json.dumps({"now": NOW, "outside": outside, "cases": cases}, ensure_ascii=False, indent=1))
