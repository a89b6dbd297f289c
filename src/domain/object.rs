//! JSON objects of some texts and numbers, written in one pass into one piece of memory.
//!
//! Every accept writes two of them, an answer and the origin of a message, and would else spend more on
//! that than on checking who calls. What is written is what `serde_json` writes, to the letter. Left out:
//! everything nested.

use json_escape_simd::escape_into;

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'a> {
    json: &'a mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    /// Begins an object behind what is there already.
    pub fn begin(json: &mut Vec<u8>) -> Object<'_> {
        json.push(b'{');
        Object { json, is_empty: true }
    }

    pub fn end(self) {
        self.json.push(b'}');
    }

    pub fn text(self, name: &'static str, value: &str) -> Self {
        let it = self.name(name);
        escape_into(value, it.json);
        it
    }

    /// A text in which nothing has to be escaped, such as an id.
    pub fn plain(self, name: &'static str, value: &str) -> Self {
        debug_assert!(
            value.bytes().all(|it| matches!(it, b' '..=b'~') && it != b'"' && it != b'\\')
        );
        let it = self.name(name);
        it.json.push(b'"');
        it.json.extend_from_slice(value.as_bytes());
        it.json.push(b'"');
        it
    }

    pub fn number(self, name: &'static str, value: i64) -> Self {
        self.raw(name, value.to_string().as_bytes())
    }

    pub fn flag(self, name: &'static str, value: bool) -> Self {
        self.raw(name, if value { b"true" } else { b"false" })
    }

    /// What a method of this type writes, or null.
    pub fn or_null<T>(
        self,
        name: &'static str,
        value: Option<T>,
        write: impl FnOnce(Self, &'static str, T) -> Self,
    ) -> Self {
        if value.is_none() { self.raw(name, b"null") } else { self.maybe(name, value, write) }
    }

    /// What a method of this type writes, or nothing.
    pub fn maybe<T>(
        self,
        name: &'static str,
        value: Option<T>,
        write: impl FnOnce(Self, &'static str, T) -> Self,
    ) -> Self {
        match value {
            Some(value) => write(self, name, value),
            None => self,
        }
    }

    fn raw(self, name: &'static str, value: &[u8]) -> Self {
        let it = self.name(name);
        it.json.extend_from_slice(value);
        it
    }

    fn name(mut self, name: &'static str) -> Self {
        self.json.extend_from_slice(if self.is_empty { b"\"" } else { b",\"" });
        self.is_empty = false;
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_writes_what_serde_json_writes() {
        let mut json = b"before".to_vec();
        Object::begin(&mut json)
            .text("a", "a \"text\"\\ of\n\u{1} é 🔔")
            .plain("b", "evt_01AZ~ ")
            .number("c", -42)
            .flag("d", true)
            .or_null("e", None, Object::text)
            .or_null("f", Some(""), Object::text)
            .maybe("g", None, Object::number)
            .maybe("h", Some(i64::MAX), Object::number)
            .flag("i", false)
            .end();
        let expected = json!({"a": "a \"text\"\\ of\n\u{1} é 🔔", "b": "evt_01AZ~ ", "c": -42, "d": true,
            "e": null, "f": "", "h": i64::MAX, "i": false});
        assert_eq!(String::from_utf8(json).unwrap(), format!("before{expected}"));
        let mut json = Vec::new();
        Object::begin(&mut json).end();
        assert_eq!(json, b"{}");
    }
}
