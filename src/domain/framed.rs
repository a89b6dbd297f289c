//! A message that waits, without what its delivery says already.
//!
//! Most messages of deliveries are a line and the whole payload, and the payload is stored beside them,
//! with the delivery; so is nearly all that is said of where they come from. So a message that waits is
//! kept as the rest, and is made whole when it is taken or shown. What it will be is fixed when it is
//! framed: nothing of this changes in a delivery, and whoever erases its payload takes the message's
//! place for it away too.

use super::{
    event::{Origin, message_to_text},
    indent::{indented, indented_bytes_max},
};
use crate::id::{DeliveryId, SourceId};

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

    /// The payload behind what stands before it.
    pub fn behind(self, mut lead: String, payload: &str) -> String {
        match self {
            Shows::AsItIs => lead.push_str(payload),
            Shows::Indented => lead.push_str(&indented(payload)),
        }
        lead
    }
}

/// A `user.message` of one text that ends with the whole payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// What stands before the payload.
    pub lead: String,
    /// What the source was called when it came.
    pub source: String,
    pub shows: Shows,
}

impl Framed {
    /// What is said in it.
    pub fn text(&self, payload: &str) -> String {
        self.shows.behind(self.lead.clone(), payload)
    }

    /// Where it comes from, but for what its delivery knows better: what kind of event it is, what its
    /// payload is, and how large.
    pub fn origin(&self, source_id: SourceId, delivery_id: DeliveryId) -> Origin {
        Origin {
            source: self.source.clone(),
            source_id,
            delivery_id,
            event_type: None,
            content_type: None,
            bytes: 0,
            cut: false,
            rerun: None,
            replay_of: None,
        }
    }

    /// The JSON of the whole message, for a payload and where it comes from.
    pub fn around(&self, payload: &str, origin: &Origin) -> String {
        message_to_text(&self.text(payload), Some(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        domain::event::{Block, EventBody},
        id::Id,
    };

    #[test]
    fn what_is_framed_is_whole_again_with_its_payload() {
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
            let framed = Framed { lead: lead.to_owned(), source: "sh\"op".to_owned(), shows };
            assert_eq!(framed.text(payload), format!("{lead}{shown}"));
            let origin = framed.origin(SourceId::new(Timestamp(0)), DeliveryId::new(Timestamp(0)));
            let content = vec![Block::text(format!("{lead}{shown}"))];
            let whole = EventBody::UserMessage { content, origin: Some(origin.clone()) };
            assert_eq!(framed.around(payload, &origin), whole.to_text());
            let n_bytes = message_to_text(&framed.text(payload), None).len()
                - message_to_text(lead, None).len();
            assert!(n_bytes <= shows.bytes_max(payload), "{n_bytes}");
        }
    }
}
