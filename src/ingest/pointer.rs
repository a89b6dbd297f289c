//! A value at a JSON pointer (RFC 6901) without a tree of all the others.
//!
//! Invariant: finds what [`serde_json::Value::pointer`] finds in the whole tree, also where a key is
//! there twice, and nothing in a text that is not one JSON value. What is passed over is read without
//! recursion, so that nesting costs nothing.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The scalar there; `Ok(None)` where there is none, or an object or array. `Ok` means that the text is
/// one JSON value; an error need not mean that it is none.
pub(super) fn find(json: &str, pointer: &str) -> serde_json::Result<Option<Value>> {
    let steps: Vec<Cow<str>> = match pointer.strip_prefix('/') {
        Some(rest) => rest.split('/').map(word).collect(),
        None if pointer.is_empty() => Vec::new(),
        None => return Err(serde_json::Error::custom("no JSON pointer")),
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = Steps(&steps).deserialize(&mut deserializer)?;
    deserializer.end().map(|()| found)
}

/// A step of a pointer as the key that it is.
pub(super) fn word(step: &str) -> Cow<'_, str> {
    match step.contains('~') {
        true => step.replace("~1", "/").replace("~0", "~").into(),
        false => step.into(),
    }
}

/// The steps that are left.
struct Steps<'a>(&'a [Cow<'a, str>]);

impl<'de> DeserializeSeed<'de> for Steps<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Steps<'_> {
    fn scalar<E>(self, value: impl Into<Value>) -> Result<Option<Value>, E> {
        Ok(self.0.is_empty().then(|| value.into()))
    }
}

impl<'de> Visitor<'de> for Steps<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Value>, E> {
        self.scalar(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Value>, E> {
        self.scalar(value)
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        let wanted = self.0.split_first();
        while let Some(is_next) = map.next_key_seed(Key(wanted.map(|(first, _)| &**first)))? {
            match wanted {
                // Of a key that is there twice the last one counts.
                Some((_, rest)) if is_next => found = map.next_value_seed(Steps(rest))?,
                Some(_) | None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Value>, A::Error> {
        let wanted = self.0.split_first().and_then(|(first, rest)| Some((index(first)?, rest)));
        let (mut at, mut found) = (0_usize, None);
        loop {
            let is_there = match wanted {
                Some((index, rest)) if index == at => {
                    seq.next_element_seed(Steps(rest))?.map(|it| found = it).is_some()
                }
                Some(_) | None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                return Ok(found);
            }
            at += 1;
        }
    }
}

/// The place in a list that a step names, as in RFC 6901: no sign, no leading zeros.
pub(super) fn index(text: &str) -> Option<usize> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    is_canonical.then(|| text.parse().ok())?
}

/// Whether a key is this one.
struct Key<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(self.0 == Some(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(json: &str, pointer: &str) -> Option<Value> {
        find(json, pointer).ok().flatten()
    }

    fn in_the_tree(json: &str, pointer: &str) -> Option<Value> {
        let tree: Value = serde_json::from_str(json).ok()?;
        let found = tree.pointer(pointer)?.clone();
        (!found.is_object() && !found.is_array() && !found.is_null()).then_some(found)
    }

    #[test]
    fn finds_what_the_tree_has() {
        let json =
            r#"{"a":{"b":[1,{"c":"x"}],"~/":true},"":-1.5,"twice":1,"twice":{"c":2},"n":null}"#;
        for pointer in [
            "",
            "/a",
            "/a/b/0",
            "/a/b/1/c",
            "/a/b/01",
            "/a/b/+1",
            "/a/b/2",
            "/a/~0~1",
            "/",
            "/twice",
            "/twice/c",
            "/n",
            "/a/b/c",
            "/missing",
            "a",
            "/a/b/1/c/d",
        ] {
            assert_eq!(at(json, pointer), in_the_tree(json, pointer), "{pointer}");
        }
        assert_eq!(at("\"text\"", ""), Some("text".into()));
    }

    #[test]
    fn half_a_value_holds_nothing() {
        for json in [r#"{"type":"x""#, r#"{"type":"x"} y"#, "type", ""] {
            assert!(find(json, "/type").is_err(), "{json}");
        }
    }

    #[test]
    fn deep_nesting_is_passed_over() {
        let deep = format!(r#"{{"deep":{}{},"type":"x"}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(at(&deep, "/type"), Some("x".into()));
    }

    proptest! {
        #[test]
        fn agrees_with_the_tree(json in json_text(), pointer in "(/[ab01~]{0,2}){0,3}") {
            prop_assert_eq!(at(&json, &pointer), in_the_tree(&json, &pointer));
        }
    }

    /// Small JSON with few different keys, doubled ones among them.
    fn json_text() -> impl Strategy<Value = String> {
        let word = "\"[ab]{0,2}\"";
        let scalar =
            prop_oneof!["[1-9][0-9]{0,2}", word, Just("null".to_owned()), Just("true".to_owned())];
        scalar.prop_recursive(4, 24, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4);
            let pairs = prop::collection::vec(("[ab01]{0,1}", inner), 0..4);
            prop_oneof![
                list.prop_map(|it| format!("[{}]", it.join(","))),
                pairs.prop_map(|pairs| {
                    let pairs: Vec<_> = pairs
                        .into_iter()
                        .map(|(key, value)| format!("\"{key}\":{value}"))
                        .collect();
                    format!("{{{}}}", pairs.join(","))
                }),
            ]
        })
    }
}
