//! What is mounted into a session: files, read-only, at a path.
//!
//! Invariant: a path that is kept leads below one of the two places where files may be mounted, by
//! names only. Left out: whether the file is there, and how it gets to its place.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Problem, access::guarded};
use crate::{
    clock::Timestamp,
    id::{FileId, ResourceId},
};

/// Where files are mounted that say nothing else.
pub const UPLOADS: &str = "/mnt/session/uploads";

/// The agent's own directory.
const WORKSPACE: &str = "/workspace";

/// Resources that a session may have, and of which a deployment may give to each of its sessions.
pub const RESOURCES_MAX: usize = 500;

const PATH_CHARS_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 255;

/// A file to mount, as somebody asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    pub file_id: FileId,
    pub mount_path: Option<String>,
}

impl FileMount {
    pub fn to_json(&self) -> Value {
        json!({"type": "file", "file_id": self.file_id, "mount_path": self.mount_path})
    }

    /// The path, its own or the default one.
    pub fn path(&self) -> String {
        self.mount_path.clone().unwrap_or_else(|| format!("{UPLOADS}/{}", self.file_id))
    }
}

/// A file that a session has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub id: ResourceId,
    /// The session's own: whatever becomes of the file that it was mounted from.
    pub file_id: FileId,
    pub mount_path: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Resource {
    /// The `FileResource` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "file",
            "file_id": self.file_id,
            "mount_path": self.mount_path,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        })
    }
}

/// Where a file is put, below one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Uploads(PathBuf),
    Workspace(PathBuf),
}

/// Reads a path, or says what is wrong with it.
pub fn place(path: &str) -> Result<Place, String> {
    let roots = format!("must lie below `{UPLOADS}` or `{WORKSPACE}`");
    if path.chars().count() > PATH_CHARS_MAX {
        return Err(format!("is longer than {PATH_CHARS_MAX} characters"));
    }
    if path.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    let below = |root: &str| path.strip_prefix(root)?.strip_prefix('/');
    let (rest, is_upload) = match (below(UPLOADS), below(WORKSPACE)) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return Err(roots),
    };
    let wrong = |name: &str| matches!(name, "" | "." | "..") || name.len() > NAME_BYTES_MAX;
    if rest.split('/').any(wrong) {
        return Err(format!(
            "{roots}, by names of 1 to {NAME_BYTES_MAX} bytes other than `.` and `..`"
        ));
    }
    let rest = PathBuf::from(rest);
    match is_upload {
        true => Ok(Place::Uploads(rest)),
        false => match guarded(&rest) {
            None => Ok(Place::Workspace(rest)),
            Some(name) => Err(format!("lies in `{name}`, which other programs execute")),
        },
    }
}

/// Reads `resources`; `at` is where they stand.
pub fn parse(given: Vec<Value>, at: &str) -> Result<Vec<FileMount>, Problem> {
    if given.len() > RESOURCES_MAX {
        return Err(Problem::new(at, format!("has more than {RESOURCES_MAX} resources")));
    }
    let read = |(n, value)| parse_one(value, &format!("{at}[{n}]"));
    let mounts = given.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    for (n, mount) in mounts.iter().enumerate() {
        if mounts[..n].iter().any(|other| collide(&other.path(), &mount.path())) {
            let message = "is the path of another resource before it, or one of them lies below the \
                           other";
            return Err(Problem::new(format!("{at}[{n}].mount_path"), message));
        }
    }
    Ok(mounts)
}

/// Whether two files cannot be at these paths at once: a file is no directory.
pub fn collide(a: &str, b: &str) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    a == b || below(a, b) || below(b, a)
}

/// Reads one of them.
pub fn parse_one(given: Value, at: &str) -> Result<FileMount, Problem> {
    let field = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    let Value::Object(mut given) = given else { return Err(Problem::new(at, "must be an object")) };
    match given.shift_remove("type").as_ref().and_then(Value::as_str) {
        Some("file") => {}
        Some("github_repository") => {
            let message = "`github_repository` is not supported by this server: use an environment of \
                           type `local`, whose `project` is a clone of the repository on the server's \
                           machine";
            return Err(Problem::new(field("type"), message));
        }
        Some("memory_store") => {
            let message = "`memory_store` is not supported by this server";
            return Err(Problem::new(field("type"), message));
        }
        _ => return Err(Problem::new(field("type"), "must be `file`")),
    }
    let file_id = match given.shift_remove("file_id") {
        Some(Value::String(id)) => {
            id.parse().map_err(|error| Problem::new(field("file_id"), format!("is {error}")))?
        }
        None | Some(Value::Null) => return Err(Problem::new(field("file_id"), "is required")),
        Some(_) => return Err(Problem::new(field("file_id"), "must be a text")),
    };
    let mount_path = match given.shift_remove("mount_path") {
        None | Some(Value::Null) => None,
        Some(Value::String(path)) => {
            place(&path).map_err(|why| Problem::new(field("mount_path"), why))?;
            Some(path)
        }
        Some(_) => return Err(Problem::new(field("mount_path"), "must be a text")),
    };
    match given.keys().next() {
        None => Ok(FileMount { file_id, mount_path }),
        Some(key) => {
            Err(Problem::new(field(&super::text::clean(key)), "is not a field of a file resource"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_below_the_two_places() {
        assert_eq!(place("/mnt/session/uploads/a/b.csv"), Ok(Place::Uploads("a/b.csv".into())));
        assert_eq!(place("/workspace/data.csv"), Ok(Place::Workspace("data.csv".into())));
        assert_eq!(place("/workspace/größe …"), Ok(Place::Workspace("größe …".into())));
        for path in [
            "",
            "data.csv",
            "/",
            "/etc/passwd",
            "/workspace",
            "/workspace/",
            "/workspacex/a",
            "/workspace/../etc/passwd",
            "/workspace/a/../../b",
            "/workspace//etc",
            "/workspace/./a",
            "/workspace/a/",
            "/mnt/session/uploads/..",
            "/mnt/session/outputs/a",
            "/workspace/.git/hooks/pre-commit",
            "/workspace/a\nb",
            "/workspace/a\0b",
            &format!("/workspace/{}", "a".repeat(256)),
            &format!("/workspace/{}", "a/".repeat(600)),
        ] {
            assert!(place(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn resources_are_files_at_paths_of_their_own() {
        let file = |path: Value| json!({"type": "file", "file_id": "file_1", "mount_path": path});
        let two = parse(vec![file(Value::Null), file(json!("/workspace/a"))], "resources").unwrap();
        assert_eq!(two[0].path(), "/mnt/session/uploads/file_1");
        for (given, wrong) in [
            (vec![json!(1)], "resources[0]"),
            (vec![json!({"type": "github_repository", "url": "x"})], "resources[0].type"),
            (vec![json!({"type": "file"})], "resources[0].file_id"),
            (vec![json!({"type": "file", "file_id": "sesn_1"})], "resources[0].file_id"),
            (vec![file(json!("/etc/a"))], "resources[0].mount_path"),
            (vec![file(Value::Null), file(Value::Null)], "resources[1].mount_path"),
            (vec![json!({"type": "file", "file_id": "file_1", "x": 1})], "resources[0].x"),
        ] {
            assert_eq!(parse(given, "resources").unwrap_err().field, wrong);
        }
    }
}
