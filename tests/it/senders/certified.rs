//! Senders whose certificates are fetched: what is fetched, for whom, and what is not.

use base64::{Engine, engine::general_purpose::STANDARD};
use bellpull::{clock::Timestamp, fetch, ingest::Options};
use futures_util::future::join_all;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use super::cases::cases;
use crate::{
    support::outside::{Made, Outside},
    web::{client::Call, server::Server},
};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:bells";
const HOST: &str = "https://sns.us-east-1.amazonaws.com";
const GOOD: &str = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem";

fn sign(pem: &str, text: &str) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("an RSA key");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .expect("it signs");
    STANDARD.encode(signature)
}

/// A message of the topic, signed by the topic's own key.
fn message(id: &str, kind: &str, certificate: &str, subscribe: &str) -> Value {
    let mut message = json!({"Type": kind, "MessageId": id, "TopicArn": TOPIC, "Message": "ring",
        "Timestamp": "2027-01-15T08:00:00Z", "SignatureVersion": "2",
        "SigningCertURL": certificate});
    let mut names = vec!["Message", "MessageId", "Timestamp", "TopicArn", "Type"];
    if kind != "Notification" {
        message["SubscribeURL"] = json!(subscribe);
        message["Token"] = json!("2336412f37");
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
            .to_vec();
    }
    let line = |name: &&str| format!("{name}\n{}\n", message[*name].as_str().expect("a text"));
    let text: String = names.iter().map(line).collect();
    message["Signature"] = json!(sign(&Made::read().sns, &text));
    message
}

fn notification(id: &str, certificate: &str) -> Value {
    message(id, "Notification", certificate, "")
}

async fn server() -> Server {
    let server = Server::since(Timestamp(cases().now * 1000)).await;
    source(&server, "sns", TOPIC).await;
    server
}

async fn source(server: &Server, preset: &str, secret: &str) {
    let source = json!({"name": preset, "preset": preset, "secret": secret});
    server.post("/v1/sources").json(source).ok().await;
}

fn deliver(server: &Server, message: &Value) -> Call {
    server.bare("POST", "/api/webhook/sns").json(message.clone())
}

async fn n_deliveries(server: &Server) -> usize {
    server.get("/v1/deliveries").ok().await["data"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_certificate_is_fetched_once_and_kept() {
    let server = server().await;
    let calls = (0..20).map(|n| deliver(&server, &notification(&n.to_string(), GOOD)).send());
    for answer in join_all(calls).await {
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    server.clock.advance(std::time::Duration::from_secs(3600));
    deliver(&server, &notification("later", GOOD)).status(202).await;
    assert_eq!(server.outside.asked(), ["/SimpleNotificationService-0a1b.pem"]);
    server.clock.advance(std::time::Duration::from_secs(24 * 3600));
    deliver(&server, &notification("next day", GOOD)).status(202).await;
    assert_eq!(server.outside.asked().len(), 2);
}

#[tokio::test]
async fn strangers_fetch_nothing_but_what_the_sender_has() {
    let mut server = server().await;
    let elsewhere = [
        "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
        "https://evil.example/SimpleNotificationService-0a1b.pem",
        "https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-0a1b.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem?x=1",
        "https://sns.us-east-1.amazonaws.com/a/b.pem",
        "https://user@sns.us-east-1.amazonaws.com/a.pem",
        "https://169.254.169.254/a.pem",
        "file:///etc/passwd",
    ];
    for url in elsewhere {
        deliver(&server, &notification("1", url)).error(401, "authentication_error").await;
    }
    // Whoever does not know the topic, and what is signed of no kind that there is.
    let mut other = notification("1", GOOD);
    other["TopicArn"] = json!("arn:aws:sns:us-east-1:666666666666:mine");
    deliver(&server, &other).error(401, "authentication_error").await;
    for (name, value) in [("Type", "Other"), ("SignatureVersion", "3"), ("Signature", "!")] {
        let mut odd = notification("1", GOOD);
        odd[name] = json!(value);
        deliver(&server, &odd).error(401, "authentication_error").await;
    }
    assert_eq!(server.outside.asked(), Vec::<String>::new());
    assert_eq!(n_deliveries(&server).await, 0);
    server.note_refusals().await;
    let refusals = server.get("/v1/sources/sns/refusals").ok().await.to_string();
    assert!(refusals.contains("the URL's host is not one of the sender's"), "{refusals}");
    assert!(refusals.contains("`/TopicArn` is not the source's"), "{refusals}");
}

#[tokio::test]
async fn what_cannot_be_had_is_not_asked_for_all_the_time() {
    let server = server().await;
    for name in ["none.pem", "large.pem", "moved.pem"] {
        for _ in 0..3 {
            let answer =
                deliver(&server, &notification("1", &format!("{HOST}/{name}"))).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("10")));
        }
    }
    assert_eq!(server.outside.asked(), ["/none.pem", "/large.pem", "/moved.pem"]);
    let past = format!("{HOST}/SimpleNotificationService-past.pem");
    deliver(&server, &notification("1", &past)).error(401, "authentication_error").await;
    server.clock.advance(std::time::Duration::from_secs(61));
    deliver(&server, &notification("1", &format!("{HOST}/none.pem"))).send().await;
    assert_eq!(server.outside.asked().len(), 5);
}

#[tokio::test]
async fn strangers_fetch_so_many_a_minute_and_do_not_stand_in_the_way() {
    let server = Server::with(Options { fetches_per_minute_max: 3, ..Options::default() }).await;
    source(&server, "sns", TOPIC).await;
    deliver(&server, &notification("known", GOOD)).status(202).await;
    for n in 0..20 {
        let url = format!("{HOST}/{n}.pem");
        assert_eq!(deliver(&server, &notification("1", &url)).send().await.status, 503);
    }
    assert_eq!(server.outside.asked().len(), 3);
    // What is known is known, and a subscription is confirmed.
    deliver(&server, &notification("still", GOOD)).status(202).await;
    let confirm = format!("{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37");
    let subscription = message("s", "SubscriptionConfirmation", GOOD, &confirm);
    assert_eq!(deliver(&server, &subscription).send().await.status, 200);
    server.clock.advance(std::time::Duration::from_secs(60));
    deliver(&server, &notification("1", &format!("{HOST}/x.pem"))).send().await;
    assert_eq!(server.outside.asked().len(), 5);
}

#[tokio::test]
async fn a_subscription_is_confirmed_for_who_signed_it_and_nowhere_else() {
    let server = server().await;
    let confirm = format!("{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37");
    let good = message("1", "SubscriptionConfirmation", GOOD, &confirm);
    let mut forged = good.clone();
    forged["Token"] = json!("another");
    deliver(&server, &forged).error(401, "authentication_error").await;
    for url in [
        "https://evil.example/?Action=ConfirmSubscription",
        "http://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://127.0.0.1/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com/other?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com/",
    ] {
        let elsewhere = message("2", "SubscriptionConfirmation", GOOD, url);
        assert_eq!(deliver(&server, &elsewhere).send().await.status, 503, "{url}");
    }
    assert_eq!(server.outside.asked(), ["/SimpleNotificationService-0a1b.pem"]);
    let answer = deliver(&server, &good).send().await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(server.outside.asked().len(), 2);
    assert!(server.outside.asked()[1].contains("Token=2336412f37"));
    // Where the confirmation does not work, the sender is told to come again.
    let broken = message("3", "SubscriptionConfirmation", GOOD, &format!("{HOST}/?Action=Other"));
    assert_eq!(deliver(&server, &broken).send().await.status, 503);
    let unsubscribed = message("4", "UnsubscribeConfirmation", GOOD, &confirm);
    assert_eq!(deliver(&server, &unsubscribed).send().await.status, 200);
    assert_eq!(n_deliveries(&server).await, 0);
}

#[tokio::test]
async fn a_certificate_of_paypal_is_one_that_this_machine_trusts_in_its_name() {
    let server = Server::since(Timestamp(cases().now * 1000)).await;
    source(&server, "paypal", "1JE4291016473214C").await;
    let paypal = Made::read().paypal;
    // The CRC-32 is Python's.
    let (body, crc) = (r#"{"id":"WH-7","event_type":"PAYMENT.SALE.COMPLETED"}"#, 1221837219);
    let call = |file: &str, webhook: &str, algorithm: &str| {
        let (id, time) = (format!("t-{file}"), "2027-01-15T08:00:00Z");
        let url = format!("https://api.sandbox.paypal.com/v1/notifications/certs/{file}");
        let signature = sign(&paypal, &format!("{id}|{time}|{webhook}|{crc}"));
        let call = server.bare("POST", "/api/webhook/paypal").body(body);
        call.header("PAYPAL-TRANSMISSION-ID", id)
            .header("PAYPAL-TRANSMISSION-TIME", time)
            .header("PAYPAL-AUTH-ALGO", algorithm)
            .header("PAYPAL-CERT-URL", url)
            .header("PAYPAL-TRANSMISSION-SIG", signature)
    };
    let (webhook, algorithm) = ("1JE4291016473214C", "SHA256withRSA");
    for file in ["CERT-1", "CERT-common-name"] {
        call(file, webhook, algorithm).status(202).await;
    }
    for file in ["CERT-self-signed", "CERT-other", "CERT-past"] {
        call(file, webhook, algorithm).error(401, "authentication_error").await;
    }
    call("CERT-1", "ANOTHER", algorithm).error(401, "authentication_error").await;
    call("CERT-1", webhook, "SHA1withRSA").error(401, "authentication_error").await;
    assert_eq!(n_deliveries(&server).await, 1, "one event, whatever certificate it names");
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_gone_to() {
    let outside = Outside::new();
    let url: String = GOOD.to_owned();
    let get =
        async |https: fetch::Https| fetch::Network::get(&https, url.parse().expect("a URL")).await;
    assert!(get(outside.https(|_| true)).await.is_ok());
    let refused = get(outside.https(fetch::is_public)).await.expect_err("it is loopback");
    assert!(refused.contains("no public address"), "{refused}");
    assert_eq!(outside.asked().len(), 1);
}
