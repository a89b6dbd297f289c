//! What all commands share: the client, the streams, and the few things that every one of them does
//! with an answer.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    client::{Client, Listing, PAGE_MAX},
    failure::{Failure, Result},
    io::Io,
    style::relative,
    table::{Cell, Fields, Table},
};
use crate::{
    clock::Timestamp,
    domain::nearest::nearest,
    id::{AgentId, ApiKeyId, DeliveryId, EnvironmentId, Id as _, SessionId, SourceId},
};

#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) client: Client,
    pub(super) json: bool,
    pub(super) io: &'a mut Io,
}

/// How much of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Paging {
    /// Entries at most [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) limit: Option<u32>,
    /// Go on where an earlier list ended: its `next_page`
    #[arg(long, value_name = "PAGE")]
    pub(super) page: Option<String>,
}

/// How much of a list of what can be archived.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Living {
    /// Archived ones too
    #[arg(long)]
    archived: bool,
    #[command(flatten)]
    pub(super) paging: Paging,
}

impl Living {
    pub(super) fn query(&self) -> &'static [(&'static str, &'static str)] {
        if self.archived { &[("include_archived", "true")] } else { &[] }
    }
}

const LIMIT_DEFAULT: usize = 20;

impl Context<'_> {
    pub(super) fn print_table(&mut self, table: &Table) -> Result<()> {
        let (style, width) = (self.io.style(), self.io.width);
        Ok(table.write(&mut self.io.out, style, width)?)
    }

    pub(super) fn print_fields(&mut self, fields: &Fields) -> Result<()> {
        let style = self.io.style();
        Ok(fields.write(&mut self.io.out, style)?)
    }

    /// A list: the API's JSON, or the table with a remark when there is nothing or more.
    pub(super) fn print_list(
        &mut self,
        listing: &Listing,
        nouns: &str,
        table: impl FnOnce(&Listing, Timestamp) -> Table,
    ) -> Result<()> {
        if self.json {
            return self.io.json(&listing.to_json());
        }
        if listing.data.is_empty() {
            self.io.note(format!("no {nouns}"))?;
        } else {
            let table = table(listing, self.io.clock.now());
            self.print_table(&table)?;
        }
        match &listing.next_page {
            Some(page) => {
                self.io.note(format!("there are more: --page {page}, or a larger --limit"))
            }
            None => Ok(()),
        }
    }

    pub(super) async fn list(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
        paging: &Paging,
    ) -> Result<Listing> {
        let n_max = paging.limit.map_or(LIMIT_DEFAULT, |limit| limit as usize);
        self.client.list(what, path, query, paging.page.clone(), n_max).await
    }

    /// All of a list: for those that fit on one page, today.
    pub(super) async fn list_all(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Listing> {
        self.client.list(what, path, query, None, NAMES_MAX).await
    }

    /// The id of the agent with this id or name.
    pub(super) async fn agent_id(&self, text: &str) -> Result<String> {
        if text.parse::<AgentId>().is_ok() {
            return Ok(text.to_owned());
        }
        self.id_by_name("agent", "agents", text).await
    }

    /// The id of the environment with this id or name.
    pub(super) async fn environment_id(&self, text: &str) -> Result<String> {
        if text.parse::<EnvironmentId>().is_ok() {
            return Ok(text.to_owned());
        }
        self.id_by_name("environment", "environments", text).await
    }

    /// The one thing of this name: names of agents need not be unique.
    pub(super) async fn id_by_name(&self, noun: &str, nouns: &str, text: &str) -> Result<String> {
        let what = format!("find the {noun} `{text}`");
        let all = self.list_all(&what, &["v1", nouns], &[]).await?.data;
        let named: Vec<&str> =
            all.iter().filter(|it| it["name"] == text).map(|it| str(&it["id"])).collect();
        match named.as_slice() {
            [id] => Ok((*id).to_owned()),
            [] => {
                let failure = Failure::new(what, format!("there is no {noun} of this name or id"));
                let names = all.iter().map(|it| str(&it["name"]));
                Err(suggest(failure.status(404), nouns, text, names))
            }
            ids => {
                let message = format!("`{text}` is the name of {} {nouns}", ids.len());
                Err(Failure::wrong(message).hint(format!("name one by its id: {}", ids.join(", "))))
            }
        }
    }

    /// The names of the agents that a list of deliveries or sessions refers to as their source.
    pub(super) async fn names(&self, listing: &Listing) -> Names {
        let is_agent = |it: &Value| str(&it["source"]).starts_with(AgentId::PREFIX);
        if self.json || !listing.data.iter().any(is_agent) {
            return Names::default();
        }
        Names::read(&self.client).await
    }

    /// Lets a failure because of an unknown name or id say which one was probably meant.
    pub(super) async fn or_nearest<T>(
        &self,
        outcome: Result<T>,
        wanted: &str,
        path: &[&str],
        fields: &[&str],
    ) -> Result<T> {
        match outcome {
            Err(failure) if failure.has_status(404) => {
                Err(self.nearest(failure, wanted, path, fields).await)
            }
            other => other,
        }
    }

    /// The failure, with the name or id that was probably meant.
    pub(super) async fn nearest(
        &self,
        failure: Failure,
        wanted: &str,
        path: &[&str],
        fields: &[&str],
    ) -> Failure {
        let list = self.client.list("look", path, &[], None, PAGE_MAX).await;
        let known = list.map(|list| list.data).unwrap_or_default();
        let names = known.iter().flat_map(|item| fields.iter().map(|field| str(&item[*field])));
        suggest(failure, path.last().unwrap_or(&""), wanted, names)
    }
}

/// Entries of such a list, and names that are looked through for one.
const NAMES_MAX: usize = 10_000;

/// Names of agents by id. An agent's own source goes by the agent's id, which tells nobody anything.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Whoever may not see the agents sees their ids.
    pub(super) async fn read(client: &Client) -> Names {
        let query = [("include_archived", "true")];
        let agents = client.list("name the agents", &["v1", "agents"], &query, None, NAMES_MAX);
        let agents = agents.await.map(|agents| agents.data).unwrap_or_default();
        let pair = |agent: &Value| (str(&agent["id"]).to_owned(), str(&agent["name"]).to_owned());
        Names(agents.iter().map(pair).collect())
    }

    /// What a source is called in a line.
    pub(super) fn source(&self, source: &Value) -> String {
        match self.0.get(str(source)) {
            Some(name) => format!("agent {name}"),
            None => str(source).to_owned(),
        }
    }

    /// Whether reading them again could tell more about this source.
    pub(super) fn lack(&self, source: &Value) -> bool {
        str(source).starts_with(AgentId::PREFIX) && !self.0.contains_key(str(source))
    }
}

/// Adds to a failure what was probably meant, if that can be told. `nouns` is what was looked for.
fn suggest<'a>(
    failure: Failure,
    nouns: &str,
    wanted: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Failure {
    let mut begin = known.clone().filter(|name| wanted.len() > 5 && name.starts_with(wanted));
    let prefixed = begin.next().filter(|_| begin.next().is_none());
    match prefixed.or_else(|| nearest(wanted, known)) {
        Some(name) if name != wanted => failure.hint(format!("did you mean `{name}`?")),
        _ => match noun(wanted) {
            Some((_, known, command)) if known == nouns => {
                failure.hint(format!("`bellpull {command}` lists what there is"))
            }
            Some((noun, _, command)) => {
                failure.hint(format!("`{wanted}` reads like {noun}; see `bellpull {command}`"))
            }
            None => failure,
        },
    }
}

/// What the prefix of an id says, how the API calls all of them, and the commands for that.
fn noun(id: &str) -> Option<(&'static str, &'static str, &'static str)> {
    [
        (AgentId::PREFIX, "an agent", "agents", "agents"),
        (ApiKeyId::PREFIX, "an API key", "api_keys", "keys"),
        (DeliveryId::PREFIX, "a delivery", "deliveries", "deliveries"),
        (EnvironmentId::PREFIX, "an environment", "environments", "sessions --help"),
        (SessionId::PREFIX, "a session", "sessions", "sessions"),
        (SourceId::PREFIX, "a source", "sources", "sources"),
    ]
    .into_iter()
    .find_map(|(prefix, noun, nouns, command)| {
        id.starts_with(prefix).then_some((noun, nouns, command))
    })
}

/// The text of a value, empty when it is none.
pub(super) fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A time in an answer, as a cell that says how long ago it was.
pub(super) fn ago(now: Timestamp, value: &Value) -> Cell {
    match str(value).parse() {
        Ok(then) => Cell::dim(relative(now, then)),
        Err(_) => Cell::default(),
    }
}

/// A time in an answer, exactly and as how long ago it was.
pub(super) fn time(fields: &mut Fields, name: &'static str, now: Timestamp, value: &Value) {
    if let Ok(then) = str(value).parse::<Timestamp>() {
        fields.with(name, Cell::new(then.to_string()), &relative(now, then));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_one_that_was_meant() {
        let check = |wanted: &str, known: &[&str], expected: Option<&str>| {
            let failure =
                suggest(Failure::new("x", "y"), "deliveries", wanted, known.iter().copied());
            let mut told = Vec::new();
            failure.report(&mut told, super::super::style::Style { color: false });
            let told = String::from_utf8(told).unwrap();
            match expected {
                Some(hint) => assert!(told.contains(hint), "{wanted}: {told}"),
                None => assert!(!told.contains("hint"), "{wanted}: {told}"),
            }
        };
        check("strpe", &["stripe", "github"], Some("did you mean `stripe`?"));
        check("sesn_01ab", &["sesn_01abcdef", "sesn_01xyz"], Some("did you mean `sesn_01abcdef`?"));
        check("sesn_01a", &[], Some("reads like a session"));
        check("dlv_1", &[], Some("`bellpull deliveries` lists what there is"));
        check("zebra", &["stripe"], None);
    }
}
