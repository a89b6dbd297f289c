//! A stored message without the payload that it shows.
//!
//! Most messages of deliveries are a line and the whole payload, and the payload is stored beside them,
//! with the delivery. So a message that waits is kept as the JSON around it, and is made whole when it
//! is taken or shown. What it will be is fixed when it is framed: the payload's bytes never change, and
//! whoever erases them takes the message's place for the payload away too.

use json_escape_simd::escape_into;

use super::{
    event::{Origin, message_to_text},
    indent::{indented, indented_bytes_max},
};

/// How the payload stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// To the letter.
    AsItIs,
    /// As JSON that is indented.
    Indented,
}

impl Shows {
    /// Bytes that it takes in the message's JSON at most.
    pub fn bytes_max(self, payload: &str) -> usize {
        match self {
            // A control character takes six.
            Shows::AsItIs => 6 * payload.len(),
            // There are none in texts of JSON; other escapes take two.
            Shows::Indented => 2 * indented_bytes_max(payload),
        }
    }
}

/// The JSON of a `user.message` around the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    pub text: String,
    /// The byte of `text` before which the payload goes in, escaped.
    pub at: usize,
    pub shows: Shows,
}

impl Framed {
    /// A message of one text, which is `lead` and then the payload.
    pub fn new(lead: &str, origin: &Origin, shows: Shows) -> Framed {
        let (text, at) = message_to_text(lead, Some(origin));
        Framed { text, at, shows }
    }

    /// The whole message.
    pub fn around(&self, payload: &str) -> String {
        let indented = match self.shows {
            Shows::AsItIs => None,
            Shows::Indented => Some(indented(payload)),
        };
        let shown = indented.as_deref().unwrap_or(payload);
        let mut escaped = Vec::with_capacity(shown.len() + shown.len() / 4 + 2);
        escape_into(shown, &mut escaped);
        let escaped = String::from_utf8(escaped).expect("JSON of a text is UTF-8");
        let quoted = &escaped[1..escaped.len() - 1];
        [&self.text[..self.at], quoted, &self.text[self.at..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        domain::event::{Block, EventBody},
        id::{DeliveryId, Id, SourceId},
    };

    fn origin() -> Origin {
        Origin {
            source: "sh\"op".to_owned(),
            source_id: SourceId::new(Timestamp(0)),
            delivery_id: DeliveryId::new(Timestamp(0)),
            event_type: Some("paid".to_owned()),
            content_type: None,
            bytes: 7,
            cut: false,
            rerun: None,
            replay_of: None,
        }
    }

    #[test]
    fn what_is_framed_is_whole_again_with_its_payload() {
        let origin = origin();
        let json = r#"{"a":["x\"y",1],"b":{}}"#;
        for (lead, payload, shows, shown) in [
            ("", "", Shows::AsItIs, String::new()),
            (
                "Webhook from \"é\"\\:\n",
                "tab\t \u{1} \u{2028} 🔔\"",
                Shows::AsItIs,
                "tab\t \u{1} \u{2028} 🔔\"".to_owned(),
            ),
            ("", json, Shows::Indented, indented(json)),
        ] {
            let content = vec![Block::text(format!("{lead}{shown}"))];
            let whole = EventBody::UserMessage { content, origin: Some(origin.clone()) };
            let framed = Framed::new(lead, &origin, shows);
            assert_eq!(framed.around(payload), whole.to_text());
            let n_bytes = framed.around(payload).len() - framed.text.len();
            assert!(n_bytes <= shows.bytes_max(payload), "{n_bytes}");
            assert!(payload.is_empty() || !framed.text.contains(payload));
        }
    }
}
