//! `edit`: replaces a text in a file of the workspace.
//!
//! Invariant: without `replace_all` exactly one place is changed, or nothing is.

use std::io::Read as _;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Host, Options, Workspace, on_files};
use crate::domain::conversation::ToolSpec;

pub const NAME: &str = "edit";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: bool,
}

pub fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description: "Replaces `old_string` by `new_string` in a text file of the workspace. \
            `old_string` must be there exactly once, unless `replace_all` is true: take some lines \
            around the place into both."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string",
                    "description": "relative to /workspace, or absolute in there"},
                "old_string": {"type": "string", "description": "as it stands in the file"},
                "new_string": {"type": "string"},
                "replace_all": {"type": "boolean", "description": "every place, not just one"},
            },
            "required": ["file_path", "old_string", "new_string"],
            "additionalProperties": false,
        }),
    }
}

pub async fn run(host: &impl Host, given: &Value) -> Result<String, Error> {
    let input = super::input(given)?;
    let (workspace, options) = (host.workspace().await?, host.options().clone());
    on_files(move |_| edit(&workspace, &input, &options)).await
}

fn edit(workspace: &Workspace, input: &Input, options: &Options) -> Result<String, Error> {
    let no = |message: String| Err(Error::Model(message));
    let Input { file_path, old_string, new_string, replace_all } = input;
    if old_string.is_empty() {
        return no("`old_string` is empty; `write` makes a new file".to_owned());
    }
    if old_string == new_string {
        return no("`old_string` and `new_string` are the same".to_owned());
    }
    let place = workspace.place(file_path)?;
    let shown = place.shown();
    let mut bytes = Vec::new();
    let mut reader = workspace.open_file(&place)?.take(options.read_bytes_max as u64 + 1);
    if let Err(error) = reader.read_to_end(&mut bytes) {
        return no(format!("`{shown}` cannot be read: {error}"));
    }
    if bytes.len() > options.read_bytes_max {
        let max = options.read_bytes_max;
        return no(format!("`{shown}` has more than the {max} bytes that `edit` works on"));
    }
    let Ok(before) = String::from_utf8(bytes) else {
        return no(format!("`{shown}` is no UTF-8 text"));
    };
    let n = before.matches(old_string.as_str()).count();
    match n {
        0 => return no(not_found(&before, old_string, &shown)),
        1 => {}
        _ if *replace_all => {}
        _ => {
            return no(format!(
                "`old_string` is {n} times in `{shown}`, first in the lines {}; take more of the \
                 text around the one place into it, or give `replace_all`",
                first_lines(&before, old_string)
            ));
        }
    }
    let after = before.replace(old_string.as_str(), new_string);
    workspace.write(&place, after.as_bytes())?;
    let line = line_of(&before, before.find(old_string.as_str()).unwrap_or(0));
    Ok(match n {
        1 => format!("changed `{shown}` in line {line}"),
        n => format!("changed {n} places of `{shown}`, the first in line {line}"),
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn first_lines(text: &str, wanted: &str) -> String {
    let lines = text.match_indices(wanted).take(5);
    let lines: Vec<String> = lines.map(|(at, _)| line_of(text, at).to_string()).collect();
    lines.join(", ")
}

/// Why a text was not found, where the reason is one of the usual ones.
fn not_found(text: &str, wanted: &str, shown: &str) -> String {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = if text.contains("\r\n") && text.replace("\r\n", "\n").contains(wanted) {
        "; its lines end in \\r\\n"
    } else if squeezed(text).contains(&squeezed(wanted)) {
        "; it is there with other spaces or line breaks"
    } else {
        "; `read` shows what is there"
    };
    format!("`old_string` is not in `{shown}`{hint}")
}
