//! Whether somebody who kept a request could send it again under another id.
//!
//! A signature over a time that is checked, or over the id, prevents that; an id that stands in the
//! body goes with the body. What is left are senders such as GitHub, which sign the body and write
//! the id beside it. Invariant: where the caller holds a secret that it sends, nothing is suspected:
//! whoever kept that request needs no replay.

use super::Sender;
use crate::domain::{
    delivery::Identity,
    field::{Field, Place},
    verifier::{Signature, Stamp, Verifier},
};

/// Whether the same body could come under a new id and be let in.
pub(super) fn is_possible(sender: &Sender, identity: &Identity) -> bool {
    // Senders without ids repeat bodies; how long they are the same event was said with the window.
    if identity.field == "body_hash" || !proves_body_alone(&sender.verifier, &identity.field) {
        return false;
    }
    let is_outside = |place: &Place| !matches!(place, Place::Pointer(_));
    let field = identity.field.parse::<Field>();
    identity.is_made_up() || field.is_ok_and(|field| field.places.iter().any(is_outside))
}

/// Whether what the verifier asks for says nothing but that the body is the sender's.
fn proves_body_alone(verifier: &Verifier, identity: &str) -> bool {
    match verifier {
        Verifier::Hmac(rule) | Verifier::Ed25519(rule) | Verifier::EcdsaP256(rule) => {
            !checks_time(rule.timestamp.as_ref()) && !signs_id(rule, identity)
        }
        Verifier::BodyHmac(rule) => !checks_time(rule.timestamp.as_ref()),
        Verifier::Jwt(rule) => rule.body_hash.is_some(),
        Verifier::OneOf { one_of } => {
            one_of.iter().any(|it| proves_body_alone(&it.verifier, identity))
        }
        // These sign the id: in the body, or in a header of its own.
        Verifier::Certificate(_) => false,
        Verifier::Bearer {}
        | Verifier::Basic { .. }
        | Verifier::Header { .. }
        | Verifier::Box {}
        | Verifier::Query { .. }
        | Verifier::BodyField { .. } => false,
    }
}

fn checks_time(stamp: Option<&Stamp>) -> bool {
    stamp.is_some_and(|stamp| stamp.tolerance_seconds.is_some())
}

fn signs_id(rule: &Signature, identity: &str) -> bool {
    rule.id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::source::SourceDefinition, ingest::presets};

    /// The senders whose requests can be sent again with a new id.
    #[test]
    fn the_table_says_who_signs_no_id_and_no_time() {
        let possible = presets().iter().filter_map(|preset| {
            let verifier = (preset.id == "basic").then(|| serde_json::json!({"username": "u"}));
            let preset_id = Some(preset.id.clone());
            let definition =
                SourceDefinition { preset: preset_id, verifier, ..SourceDefinition::default() };
            let sender = Sender::defined(&definition).ok()?;
            let fields = sender.identity.iter().map(ToString::to_string);
            let identity = |field| Identity { key: String::new(), field, weak: false };
            fields.map(identity).any(|it| is_possible(&sender, &it)).then_some(preset.id.as_str())
        });
        let expected = [
            "github",
            "gitea",
            "bitbucket",
            "bitbucket-dc",
            "zendesk",
            "jira",
            "twilio",
            "sentry",
            "pagerduty",
            "shopify",
            "woocommerce",
            "razorpay",
        ];
        let mut found: Vec<&str> = possible.collect();
        found.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
