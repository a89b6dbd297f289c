//! A request that somebody kept, read from the files in which people keep them.
//!
//! Headers come as `Name: value` lines, as `curl -v` and servers print them, or as JSON: an object
//! of names, or a list of names and values. A request line among them says method and path.

use serde_json::{Map, Value, json};

use super::failure::{Failure, Result};

/// What a file of headers says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Head {
    pub(super) method: Option<String>,
    pub(super) url: Option<String>,
    /// Name to a list of values.
    pub(super) headers: Map<String, Value>,
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Result<Head> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Failure::wrong("the file of headers is not valid UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if text.starts_with(['{', '[']) { Head::from_json(text) } else { Head::from_lines(text) }
    }

    fn from_json(text: &str) -> Result<Head> {
        let wrong = || {
            Failure::wrong("the headers are no JSON object of texts or lists of texts")
                .hint("`Name: value` lines are fine too")
        };
        let mut head = Head::default();
        match serde_json::from_str(text).map_err(|_| wrong())? {
            Value::Object(map) => {
                for (name, given) in map {
                    let given = match given {
                        Value::Array(list) => list,
                        one => vec![one],
                    };
                    for value in given {
                        head.add(&name, value.as_str().ok_or_else(wrong)?);
                    }
                }
            }
            Value::Array(list) => {
                for entry in list {
                    let text = |key: &str| entry[key].as_str().map(str::to_owned);
                    let (Some(name), Some(value)) = (text("name"), text("value")) else {
                        return Err(wrong());
                    };
                    head.add(&name, &value);
                }
            }
            _ => return Err(wrong()),
        }
        Ok(head)
    }

    fn from_lines(text: &str) -> Result<Head> {
        let mut head = Head::default();
        for (n, line) in text.lines().enumerate() {
            // `curl -v` marks what it sent, and talks of other things besides.
            if line.starts_with(['<', '*', '{', '}']) {
                continue;
            }
            let line = line.strip_prefix('>').unwrap_or(line).trim();
            if line.is_empty() || line.starts_with(':') {
                continue;
            }
            if let Some((method, url)) = request_line(line) {
                head.method = Some(method.to_owned());
                head.url = Some(url.to_owned());
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| {
                Failure::wrong(format!("line {} of the headers is not `Name: value`", n + 1))
            })?;
            head.add(name.trim(), value.trim());
        }
        Ok(head)
    }

    fn add(&mut self, name: &str, value: &str) {
        let values = self.headers.entry(name.to_ascii_lowercase()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(value.into());
        }
    }
}

/// `POST /path HTTP/1.1`.
fn request_line(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    let (method, url, version) = (words.next()?, words.next()?, words.next()?);
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    (is_method && version.starts_with("HTTP/")).then_some((method, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_people_keep_them() {
        let check = |text: &str, expected: Value| {
            let head = Head::read(text.as_bytes()).ok();
            let shown =
                head.map_or(Value::Null, |head| json!([head.method, head.url, head.headers]));
            assert_eq!(shown, expected, "{text}");
        };
        check(
            "X-A: 1\r\nx-a:2\n\nX-B:  c: d ",
            json!([null, null, {"x-a": ["1", "2"], "x-b": ["c: d"]}]),
        );
        let curl = "* Connected\n> POST /api/webhook/code?a=1 HTTP/1.1\n> Host: b:4100\n> X-A: 1\n>\n\
                    < HTTP/1.1 401 Unauthorized\n< x-c: 1\n{ [5 bytes data]";
        let expected = json!(["POST", "/api/webhook/code?a=1", {"host": ["b:4100"], "x-a": ["1"]}]);
        check(curl, expected);
        check(":authority: b\nx-a: 1", json!([null, null, {"x-a": ["1"]}]));
        check(
            r#"{"X-A": "1", "x-b": ["2", "3"]}"#,
            json!([null, null, {"x-a": ["1"], "x-b": ["2", "3"]}]),
        );
        check(r#"[{"name": "X-A", "value": "1"}]"#, json!([null, null, {"x-a": ["1"]}]));
        check("", json!([null, null, {}]));
        for wrong in ["no header", r#"{"a": 1}"#, r#"{"a""#, r#"[1]"#] {
            check(wrong, Value::Null);
        }
    }
}
