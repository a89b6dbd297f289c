//! What is fuzzed: the gate, and the reading of verifiers, on bytes that anybody may send.
//!
//! Each entry takes raw bytes and must come to an end without a panic; what it decides is checked
//! where it can be told without another gate. The fuzz targets in `fuzz/` and the tests beside this
//! file drive the same entries.

use bellpull::{
    clock::Timestamp,
    domain::{secret::SecretName, verifier::Verifier},
    id::{Id, WebhookRequestId},
    ingest::{Draft, Endpoint, Head, Held, Payload, Secrets, prove, sign},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// 64 characters that are hexadecimal, base64 and text.
const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Verifiers of every shape.
fn shapes() -> Vec<Verifier> {
    let signed = "{id}.{timestamp}.{body}";
    let shapes = [
        json!({"type": "bearer"}),
        json!({"type": "basic", "username": "u"}),
        json!({"type": "header", "header": "a"}),
        json!({"type": "query", "parameter": "a"}),
        json!({"type": "body_field", "field": "/a/*/b"}),
        json!({"type": "hmac", "header": "a"}),
        json!({"type": "hmac", "header": ["a", "b"], "encoding": "base64", "algorithm": "sha1"}),
        json!({"type": "hmac", "header": "a", "prefix": "sha256=", "secret_encoding": "hex"}),
        json!({"type": "hmac", "header": "a", "separator": ",", "scheme": "v1",
            "template": "{timestamp}.{body}", "timestamp": {"entry": "t", "tolerance_seconds": 300}}),
        json!({"type": "hmac", "header": "a", "separator": " ", "scheme": "v1", "template": signed,
            "id": "b", "timestamp": {"header": "c"}, "secret_encoding": "base64"}),
        json!({"type": "hmac", "header": "a", "template": "{timestamp}{body}",
            "timestamp": {"header": "b", "unit": "rfc3339", "tolerance_seconds": 300}}),
        json!({"type": "hmac", "header": "a", "template": "{timestamp}{body}",
            "timestamp": {"header": "b", "unit": "http_date"}}),
        json!({"type": "hmac", "header": "a", "timestamp": {"body": "/t", "unit": "milliseconds"}}),
        json!({"type": "hmac", "header": "a", "template": "{url}{form}", "algorithm": "sha512"}),
        json!({"type": "hmac", "header": "a", "template": "{method}{decoded_url}{body}",
            "keyed": "prefix"}),
        json!({"type": "ed25519", "header": "a"}),
        json!({"type": "ecdsa_p256", "header": "a", "encoding": "base64"}),
        json!({"type": "body_hmac", "items": ["/l/*", ""], "signature": "/s",
            "fields": ["/a", "/b"], "timestamp": {"body": "/t"}}),
        json!({"type": "jwt", "header": "a", "issuer": "i", "body_hash": "h"}),
        json!({"type": "one_of", "one_of": [{"when_secret": "00", "verifier": {"type": "bearer"}},
            {"verifier": {"type": "hmac", "header": "a"}}]}),
    ];
    shapes.iter().map(|shape| Verifier::read(shape).expect("it is a verifier")).collect()
}

fn secrets() -> Secrets {
    Secrets::of(SecretName { name: "S".to_owned(), version: 1 }, SECRET.into())
}

/// A request made of bytes: a line for each header, an empty line, and the body. `?` begins a line
/// with the query.
fn request(data: &[u8]) -> (Head, Payload) {
    let mut headers = HeaderMap::new();
    let mut url = "https://bell.example/api/webhook/s".to_owned();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        if let Some(query) = line.strip_prefix(b"?") {
            url = format!("{url}?{}", String::from_utf8_lossy(query));
        } else if let Some(colon) = line.iter().position(|byte| *byte == b':')
            && let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(&line[..colon]),
                HeaderValue::from_bytes(&line[colon + 1..]),
            )
        {
            headers.append(name, value);
        }
    }
    let payload = Payload::new(&headers, Bytes::copy_from_slice(rest));
    let endpoint = Endpoint::Source("s".to_owned());
    let request_id = WebhookRequestId::new(NOW);
    (Head { endpoint, method: Method::POST, url, headers, request_id }, payload)
}

/// A request to a gate of every shape. Nothing that is not signed passes one that wants a signature.
pub fn gate(data: &[u8]) {
    let (head, payload) = request(data);
    let secrets = secrets();
    for verifier in shapes() {
        let passed = prove(&verifier, &secrets, &head, &payload, NOW);
        let sends_secret = matches!(
            verifier,
            Verifier::Bearer {}
                | Verifier::Basic { .. }
                | Verifier::Header { .. }
                | Verifier::Query { .. }
                | Verifier::BodyField { .. }
                | Verifier::OneOf { .. }
        );
        // A secret that is sent may have been copied into the data; a signature cannot be guessed.
        assert!(passed.is_err() || sends_secret, "{verifier:?} let in what nobody signed");
    }
}

/// A verifier that somebody wrote. What is read can be written, can be called with anything, and
/// lets in what is signed for it.
pub fn verifier(data: &[u8]) {
    let (written, data) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let Ok(written) = serde_json::from_slice::<Value>(written) else { return };
    let Ok(verifier) = Verifier::read(&written) else { return };
    let again = Verifier::read(&json!(verifier)).expect("what was read is written as it is read");
    assert_eq!(again, verifier);
    let (head, payload) = request(data);
    let secrets = secrets();
    let _ = prove(&verifier, &secrets, &head, &payload, NOW);
    signed(&verifier, head, &payload);
}

/// Signs a request and puts it to the gate.
fn signed(verifier: &Verifier, head: Head, payload: &Payload) {
    let draft = Draft {
        method: head.method.clone(),
        url: head.url.clone(),
        headers: head.headers.clone(),
        body: payload.bytes.clone(),
    };
    let held = Held { secret: Some(SECRET), box_key: None };
    let Ok(signed) = sign(verifier, held, &draft, "test-1", NOW) else { return };
    assert!(
        !format!("{:?}", signed.shown).contains(SECRET) || format!("{draft:?}").contains(SECRET)
    );
    let head = signed.sent.head(head.endpoint, head.request_id);
    let payload = Payload::new(&head.headers, signed.sent.body);
    let _ = prove(verifier, &secrets(), &head, &payload, NOW);
}
