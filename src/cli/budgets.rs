//! `budgets`: what the work of an agent or a source may use, and of all together.

use serde_json::{Map, Value, json};

use super::{
    Exit,
    context::{Context, str},
    failure::{Failure, Result},
    table::{Cell, Fields},
};
use crate::id::SourceId;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull budgets show lucy
  bellpull budgets set lucy --turn cost_usd=0.50,seconds=900 --day cost_usd=20
  bellpull budgets set stripe --day model_calls=500      of what this source makes
  bellpull budgets set lucy --day none
  bellpull budgets set all --day cost_usd=50             of everything together

A limit is one of cost_usd, tokens, model_calls, tool_calls and seconds (of work). A day is one of UTC.
Of several budgets the strictest counts; those of the server are in its configuration.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, read from the command line")]
enum Action {
    /// Show the budgets of an agent or a source, or of `all`
    Show {
        #[arg(value_name = "AGENT|SOURCE|all")]
        owner: String,
    },
    /// Set budgets; those that are not named stay
    Set {
        #[arg(value_name = "AGENT|SOURCE|all")]
        owner: String,
        /// Of each turn, such as `cost_usd=0.50,seconds=900`; `none` takes it away
        #[arg(long, value_name = "LIMITS", value_parser = limits, required_unless_present_any = ["session", "day"])]
        turn: Option<Value>,
        /// Of each session
        #[arg(long, value_name = "LIMITS", value_parser = limits)]
        session: Option<Value>,
        /// Of all its work in a day
        #[arg(long, value_name = "LIMITS", value_parser = limits)]
        day: Option<Value>,
    },
}

const SCOPES: [&str; 3] = ["turn", "session", "day"];

/// The limits as the API has them.
fn limits(text: &str) -> std::result::Result<Value, String> {
    let mut limits = Map::new();
    if text == "none" {
        return Ok(Value::Object(limits));
    }
    for part in text.split(',') {
        let (name, value) =
            part.split_once('=').ok_or("write `name=number`, with commas between")?;
        let (name, value) = (name.trim(), value.trim());
        let value = match name {
            "cost_usd" => Value::from(value.strip_prefix('$').unwrap_or(value)),
            "tokens" | "model_calls" | "tool_calls" | "seconds" => {
                let number = value.parse::<i64>();
                number.map_err(|_| format!("`{value}` is no whole number"))?.into()
            }
            _ => {
                let known = "cost_usd, tokens, model_calls, tool_calls and seconds";
                return Err(format!("`{name}` is no limit; there are {known}"));
            }
        };
        if limits.insert(name.to_owned(), value).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(Value::Object(limits))
}

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let (owner, changes) = match args.action {
        Action::Show { owner } => (owner, None),
        Action::Set { owner, turn, session, day } => (owner, Some([turn, session, day])),
    };
    let owner = owner_id(&owner, context).await?;
    let path = ["v1", "budgets", &owner];
    let what = format!("find the budgets of `{owner}`");
    let mut budgets = context.client.get(&what, &path, &[]).await?;
    if let Some(changes) = changes {
        let scopes = SCOPES.into_iter().zip(changes);
        let body: Map<String, Value> = scopes
            .map(|(scope, given)| {
                let value = given.unwrap_or_else(|| budgets[scope].take());
                (scope.to_owned(), if value.is_null() { json!({}) } else { value })
            })
            .collect();
        let what = format!("set the budgets of `{owner}`");
        budgets = context.client.post(&what, &path, &Value::Object(body)).await?;
    }
    if context.json {
        context.io.json(&budgets)?;
    } else {
        let mut fields = Fields::default();
        fields.add("owner", Cell::strong(str(&budgets["owner"])));
        for scope in SCOPES {
            fields.add(scope, Cell::new(shown(&budgets[scope])));
        }
        context.print_fields(&fields)?;
    }
    Ok(Exit::Fine)
}

/// Agents go by their names, too; the server knows sources by theirs.
async fn owner_id(text: &str, context: &Context<'_>) -> Result<String> {
    if text == "all" || text.parse::<SourceId>().is_ok() {
        return Ok(text.to_owned());
    }
    let failure = match context.agent_id(text).await {
        Err(failure) if failure.has_status(404) => failure,
        found => return found,
    };
    let what = format!("find the source `{text}`");
    match context.client.get(&what, &["v1", "sources", text], &[]).await {
        Ok(source) => Ok(str(&source["id"]).to_owned()),
        Err(other) if other.has_status(404) => {
            Err(Failure::new(what, "there is no agent and no source of this name or id")
                .status(404)
                .hint("`bellpull agents` and `bellpull sources` list them"))
        }
        Err(_) => Err(failure),
    }
}

fn shown(budget: &Value) -> String {
    let Some(limits) = budget.as_object().filter(|limits| !limits.is_empty()) else {
        return "no limit".to_owned();
    };
    let limits = limits.iter().map(|(name, value)| match (name.as_str(), value) {
        ("cost_usd", Value::String(usd)) => format!("${usd}"),
        (name, value) => format!("{value} {}", name.replace('_', " ")),
    });
    limits.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        assert_eq!(
            limits("cost_usd=$0.50, seconds=900"),
            Ok(json!({"cost_usd": "0.50", "seconds": 900}))
        );
        assert_eq!(limits("none"), Ok(json!({})));
        for (text, why) in [
            ("cost=1", "`cost` is no limit"),
            ("tokens", "name=number"),
            ("tokens=many", "`many` is no whole number"),
            ("tokens=1,tokens=2", "twice"),
        ] {
            let said = limits(text).expect_err(text);
            assert!(said.contains(why), "{said}");
        }
    }
}
