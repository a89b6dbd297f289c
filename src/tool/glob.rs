//! `glob`: the files of the workspace whose paths fit a pattern, the newest first.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Error, Host, Options, Stop, Workspace, on_files,
    walk::{End, pattern_of, walk},
};
use crate::domain::conversation::ToolSpec;

pub const NAME: &str = "glob";

/// Files of one answer.
const HITS_MAX: usize = 200;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    #[serde(default)]
    path: Option<String>,
}

pub fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description: "Lists files of the workspace whose path fits a pattern, the newest first: \
            `*.rs` in a directory itself, `**/*.rs` also below it, `{a,b}` for either. What \
            `.gitignore` leaves out is not listed, unless `path` is in it."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "description": "relative to `path`"},
                "path": {"type": "string",
                    "description": "directory where to look; /workspace when left out"},
            },
            "required": ["pattern"],
            "additionalProperties": false,
        }),
    }
}

pub async fn run(host: &impl Host, given: &Value) -> Result<String, Error> {
    let input = super::input(given)?;
    let (workspace, options) = (host.workspace().await?, host.options().clone());
    on_files(move |stop| find(&workspace, &input, &options, stop)).await
}

fn find(
    workspace: &Workspace,
    input: &Input,
    options: &Options,
    stop: &Stop,
) -> Result<String, Error> {
    let place = workspace.place(input.path.as_deref().unwrap_or("."))?;
    if input.pattern.len() > PATTERN_BYTES_MAX {
        let message = format!("the pattern has more than {PATTERN_BYTES_MAX} bytes");
        return Err(Error::Model(message));
    }
    // A pattern may be written with the place where it begins.
    let root = format!("{}/", place.shown());
    let pattern = input.pattern.strip_prefix(&root).unwrap_or(&input.pattern);
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let matcher = pattern_of(pattern)
        .map_err(|error| Error::Model(format!("the pattern cannot be read: {}", error.kind())))?;
    let mut found = Vec::new();
    let end = walk(workspace, &place, options.search_entries_max, stop, &mut |entry| {
        if matcher.is_match(entry.path) {
            found.push((entry.modified(), entry.path.to_owned()));
        }
        true
    })?;
    found.sort_unstable_by(|(a, a_path), (b, b_path)| b.cmp(a).then_with(|| a_path.cmp(b_path)));
    let shown: Vec<String> =
        found.iter().take(HITS_MAX).map(|(_, path)| place.join(path).shown()).collect();
    let mut answer = match shown.is_empty() {
        true => format!("no file in `{}` fits `{pattern}`", place.shown()),
        false => shown.join("\n"),
    };
    if found.len() > HITS_MAX {
        answer.push_str(&format!("\n[the newest {HITS_MAX} of {} files]", found.len()));
    }
    if end == End::Bound {
        let max = options.search_entries_max;
        answer.push_str(&format!("\n[there are more than {max} entries; give a deeper `path`]"));
    }
    Ok(answer)
}
