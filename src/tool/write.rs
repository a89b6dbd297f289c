//! `write`: a whole file of the workspace. Doing it twice is the same as once.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Host, on_files};
use crate::domain::conversation::ToolSpec;

pub const NAME: &str = "write";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    content: String,
}

pub fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description: "Writes a whole file of the workspace, over the one that is there, and makes \
            the directories before it. To change a part of a file, use `edit`."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string",
                    "description": "relative to /workspace, or absolute in there"},
                "content": {"type": "string", "description": "all that the file shall hold"},
            },
            "required": ["file_path", "content"],
            "additionalProperties": false,
        }),
    }
}

pub async fn run(host: &impl Host, given: &Value) -> Result<String, Error> {
    let Input { file_path, content } = super::input(given)?;
    let workspace = host.workspace().await?;
    on_files(move |_| {
        let place = workspace.place(&file_path)?;
        let is_new = workspace.write(&place, content.as_bytes())?;
        let what = if is_new { "wrote" } else { "wrote over" };
        Ok(format!("{what} `{}`, {} bytes", place.shown(), content.len()))
    })
    .await
}
