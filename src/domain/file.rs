//! Files: what was uploaded, and what sessions have.
//!
//! Invariant: a name is one that any file system and any header can hold. Left out: the bytes.

use serde_json::{Value, json};

use super::text::is_deceptive;
use crate::{
    clock::Timestamp,
    id::{FileId, SessionId},
};

/// Longest name, in bytes, as file systems have it.
const NAME_BYTES_MAX: usize = 255;

/// What a file has whose type nobody said.
const OCTETS: &str = "application/octet-stream";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    pub id: FileId,
    pub filename: String,
    pub mime_type: String,
    pub size_bytes: i64,
    /// The session that it belongs to, and goes with.
    pub session_id: Option<SessionId>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

impl FileInfo {
    /// The `FileMetadata` object of the API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "file",
            "filename": self.filename,
            "mime_type": self.mime_type,
            "size_bytes": self.size_bytes,
            "downloadable": true,
            "scope": self.session_id.as_ref().map(|id| json!({"type": "session", "id": id})),
            "created_at": self.created_at,
            "expires_at": self.expires_at,
        })
    }
}

/// Types by the ends of names, for files of which nobody said it, and the other way round.
const TYPES: [(&str, &str); 16] = [
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("xml", "application/xml"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("svg", "image/svg+xml"),
];

/// The type of a file: as given, if that is one, or what its name says.
pub fn mime_type(given: Option<&str>, name: Option<&str>) -> String {
    let given = given.map(|given| given.split(';').next().unwrap_or_default().trim());
    let token = |text: &str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        (1..=127).contains(&text.len()) && text.bytes().all(fine)
    };
    let is_type = |text: &&str| text.split_once('/').is_some_and(|(a, b)| token(a) && token(b));
    if let Some(given) = given.filter(is_type).filter(|given| *given != OCTETS) {
        return given.to_ascii_lowercase();
    }
    let end = name.and_then(|name| name.rsplit_once('.')).map(|(_, end)| end.to_ascii_lowercase());
    let known = TYPES.iter().find(|(known, _)| Some(*known) == end.as_deref());
    known.map_or(OCTETS, |(_, mime)| mime).to_owned()
}

/// A name that is safe to keep: the last part of a path, without what cannot be seen or stored. One
/// of which nothing is left is called `unnamed`.
pub fn filename(given: Option<&str>, mime_type: &str) -> String {
    let last = given.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = |char: &char| !char.is_control() && !is_deceptive(*char);
    let mut name = last.chars().filter(kept).collect::<String>().trim().to_owned();
    if name.len() > NAME_BYTES_MAX {
        // The end says what it is, if it is short.
        let end = name.rfind('.').filter(|at| name.len() - at <= 16);
        let end = end.map_or(String::new(), |at| name[at..].to_owned());
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX - end.len()));
        name.push_str(&end);
    }
    if matches!(name.as_str(), "" | "." | "..") {
        let end = TYPES.iter().find(|(_, mime)| *mime == mime_type);
        return end.map_or("unnamed".to_owned(), |(end, _)| format!("unnamed.{end}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe() {
        for (given, kept) in [
            (Some("report.pdf"), "report.pdf"),
            (Some("../../etc/passwd"), "passwd"),
            (Some("C:\\Users\\x\\größe.csv"), "größe.csv"),
            (Some("a\0b\n\u{202e}c.txt"), "abc.txt"),
            (Some("  日本語 📎.txt "), "日本語 📎.txt"),
            (Some(".."), "unnamed.txt"),
            (Some("a/"), "unnamed.txt"),
            (Some("\u{0}"), "unnamed.txt"),
            (None, "unnamed.txt"),
        ] {
            assert_eq!(filename(given, "text/plain"), kept);
        }
        assert_eq!(filename(None, "x/y"), "unnamed");
        let long = filename(Some(&format!("{}.tar.gz", "ü".repeat(300))), "x/y");
        assert!(long.len() <= 255 && long.ends_with("ü.gz"), "{long}");
    }

    #[test]
    fn types_are_given_or_said_by_the_name() {
        assert_eq!(mime_type(Some("Text/Plain; charset=utf-8"), None), "text/plain");
        assert_eq!(mime_type(None, Some("a.CSV")), "text/csv");
        assert_eq!(mime_type(Some("application/octet-stream"), Some("a.png")), "image/png");
        assert_eq!(mime_type(Some("text/html\r\nx: y"), Some("a")), "application/octet-stream");
        assert_eq!(mime_type(Some("/"), Some("a.b")), "application/octet-stream");
    }
}
