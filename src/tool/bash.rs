//! `bash`: runs a command in the session's shell.
//!
//! What a command does wrong is an answer to the model, as is a machine without a sandbox. Left out:
//! whether this call may be made at all, which was decided before.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Error, Host, sandbox,
    shell::{End, Ran},
};
use crate::domain::conversation::ToolSpec;

pub const NAME: &str = "bash";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(default)]
    command: Option<String>,
    #[serde(default)]
    restart: bool,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

pub fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description: "Runs a command in a bash shell whose directory, variables and background \
            processes last from one call to the next; it begins in the workspace. Commands read \
            nothing from standard input. Of a long output both ends are answered, and where the \
            whole is. With `restart` the shell begins anew. A command that takes longer than \
            `timeout_ms` is killed together with its shell: give long work more time, or run it in \
            the background with its output in a file."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "the command"},
                "restart": {"type": "boolean", "description": "begin with a new shell"},
                "timeout_ms": {"type": "integer", "minimum": 1, "description": "milliseconds that \
                    the command may take; two minutes when left out"},
            },
            "additionalProperties": false,
        }),
    }
}

pub async fn run(host: &impl Host, input: &Value) -> Result<String, Error> {
    let input: Input = serde_json::from_value(input.clone())
        .map_err(|error| Error::Model(format!("the input does not fit: {error}")))?;
    let mut shell = host.shell().await?;
    if input.restart {
        shell.restart();
    }
    let Some(command) = input.command else {
        return if input.restart {
            Ok("the shell was ended; the next command begins with a new one".to_owned())
        } else {
            Err(Error::Model("give `command`, or `restart`".to_owned()))
        };
    };
    let timeout_ms = input.timeout_ms.unwrap_or(shell.options.timeout_ms);
    let timeout = Duration::from_millis(timeout_ms.min(shell.options.timeout_ms_max));
    match shell.run(&command, timeout).await {
        Ok(ran) => answer(&ran, input.restart),
        Err(error @ (sandbox::Error::Refused(_) | sandbox::Error::Workspace(_))) => {
            Err(Error::Model(error.to_string()))
        }
        // Told to the model too: the next call may fare better, and nothing was done by this one.
        Err(error @ sandbox::Error::Failed(_)) => {
            tracing::warn!(%error, "a shell failed");
            Err(Error::Model(format!("{error}; the shell and its state are gone")))
        }
    }
}

/// What the model is told of a shell that is no more.
const GONE: &str = "the shell was ended with everything that ran in it; its directory, its variables \
    and its background processes are gone, and the next command begins with a new shell";

fn answer(ran: &Ran, was_asked_for: bool) -> Result<String, Error> {
    let mut text = String::new();
    if ran.is_anew && !was_asked_for {
        text.push_str(
            "[this is a new shell: the directory, variables and background processes of the one \
             before it are gone]\n",
        );
    }
    let output = ran.output.trim_end_matches('\n');
    text.push_str(output);
    let mut add = |note: &str| {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(note);
    };
    let why = match &ran.end {
        End::Exited(0) if output.is_empty() => {
            add("[no output]");
            return Ok(text);
        }
        End::Exited(0) => return Ok(text),
        End::Exited(status) => {
            add(&format!("[exit status {status}]"));
            return Ok(text);
        }
        End::ShellEnded(Some(status)) => format!("the shell exited with status {status}"),
        End::ShellEnded(None) => "the shell was killed".to_owned(),
        End::TimedOut(after) => format!("timed out after {} ms", after.as_millis()),
        End::TooLoud(bytes) => format!("said more than {bytes} bytes"),
    };
    add(&format!("[{why}: {GONE}]"));
    Err(Error::Model(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_told_how_it_ended() {
        let ran = |end, output: &str, is_anew| Ran { end, output: output.to_owned(), is_anew };
        let told = |ran| answer(&ran, false).map_err(|error| error.to_string());
        assert_eq!(told(ran(End::Exited(0), "a\n", false)), Ok("a".to_owned()));
        assert_eq!(told(ran(End::Exited(0), "", false)), Ok("[no output]".to_owned()));
        assert_eq!(told(ran(End::Exited(3), "a\n", false)), Ok("a\n[exit status 3]".to_owned()));
        let anew = told(ran(End::Exited(0), "a", true)).unwrap();
        assert!(anew.starts_with("[this is a new shell") && anew.ends_with("\na"), "{anew}");
        for end in [
            End::ShellEnded(Some(3)),
            End::ShellEnded(None),
            End::TimedOut(Duration::from_secs(1)),
            End::TooLoud(7),
        ] {
            let told = told(ran(end, "a", false)).unwrap_err();
            assert!(told.starts_with("a\n[") && told.contains("are gone"), "{told}");
        }
    }
}
