//! `tail`: what happens, while it happens.

use std::time::Duration;

use serde_json::Value;

use super::{
    Exit,
    context::{Context, str},
    failure::Result,
    follow::{Follow, Options, Update},
    io::Io,
    style::look,
    table::one_line,
    transcript::Transcript,
    watch,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull tail                                 every delivery as it comes, and what became of it
  bellpull tail sesn_01jv…                      one session, from its first event on
  bellpull tail sesn_01jv… --until-idle         the same, up to the end of the turn
  bellpull tail sesn_01jv… --json | jq .type    one event per line, as the API has it

Times are UTC. With --until-idle the exit code is 0 if the last turn ended well, and 1 if it failed,
was refused, ran out of budget or waits for somebody's answer.";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Session to follow; without one, the newest deliveries and sessions
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// End when the session is idle and no message waits
    #[arg(long, visible_alias = "once", requires = "session")]
    until_idle: bool,
    /// Show messages that came in whole, not just their first 4,000 characters
    #[arg(long, requires = "session")]
    full: bool,
    /// Give up when the server cannot be reached for so long, in seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = GIVE_UP_SECONDS_DEFAULT)]
    give_up: u32,
}

const GIVE_UP_SECONDS_DEFAULT: u32 = 300;

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let give_up = Some(args.give_up).filter(|seconds| *seconds > 0);
    let give_up = give_up.map(|seconds| Duration::from_secs(u64::from(seconds)));
    match args.session {
        Some(id) => {
            let how = How { until_idle: args.until_idle, full: args.full, give_up };
            session(context, &id, how).await
        }
        None => watch::run(context, give_up).await,
    }
}

/// How a session is followed.
#[derive(Debug)]
pub(super) struct How {
    pub(super) until_idle: bool,
    pub(super) full: bool,
    pub(super) give_up: Option<Duration>,
}

impl How {
    /// What `--follow` of other commands means.
    pub(super) fn follow() -> How {
        let give_up = Duration::from_secs(u64::from(GIVE_UP_SECONDS_DEFAULT));
        How { until_idle: true, full: false, give_up: Some(give_up) }
    }
}

/// What there is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Something is being done, or is about to be.
    Busy,
    Idle,
    /// Nothing will ever be done again.
    Over,
}

impl Rest {
    fn of(session: &Value) -> Rest {
        match str(&session["status"]) {
            "terminated" => Rest::Over,
            "idle" if session["messages_waiting"].as_i64().unwrap_or(0) == 0 => Rest::Idle,
            _ => Rest::Busy,
        }
    }
}

/// Follows one session.
pub(super) async fn session(context: &mut Context<'_>, id: &str, how: How) -> Result<Exit> {
    let what = format!("follow the session `{id}`");
    let path = ["v1", "sessions", id];
    let found = context.client.get(&what, &path, &[]).await;
    let found = context.or_nearest(found, id, &["v1", "sessions"], &["id"]).await?;
    let Context { client, json, io } = context;
    let mut screen = Screen::new(io, *json, how.full);
    screen.heading(&found)?;
    // Previews are for somebody who looks: a file or a program gets whole messages.
    let deltas = screen.io.out_is_terminal && !*json;
    let mut follow = Follow::new(client, id, Options::new(how.give_up, deltas));
    // Asked before the history is read, so whatever it was then is in what is read.
    let mut rest = Rest::of(&found);
    loop {
        let update = follow.next().await?;
        let is_over = match &update {
            Update::CaughtUp => rest == Rest::Over || (how.until_idle && rest == Rest::Idle),
            Update::Event(event) => str(&event["type"]) == "session.status_terminated",
            Update::Ended => true,
            _ => false,
        };
        let may_rest = match &update {
            Update::CaughtUp | Update::Quiet => true,
            Update::Event(event) => str(&event["type"]) == "session.status_idle",
            _ => false,
        };
        screen.show(update)?;
        if is_over {
            screen.close()?;
            return Ok(if how.until_idle { screen.exit() } else { Exit::Fine });
        }
        if how.until_idle && may_rest && follow.is_live() {
            // A server that cannot answer now is asked again at the next update.
            let now = client.get(&what, &path, &[]).await;
            rest = now.map_or(Rest::Busy, |session| Rest::of(&session));
            if rest != Rest::Busy {
                follow.look_again();
            }
        }
    }
}

/// Where the updates of a session are shown.
struct Screen<'a> {
    io: &'a mut Io,
    json: bool,
    transcript: Transcript,
    /// Why the session rested last.
    stop: Option<String>,
}

impl Screen<'_> {
    fn new(io: &mut Io, json: bool, full: bool) -> Screen<'_> {
        let transcript = Transcript::new(io.style(), io.width, full);
        Screen { io, json, transcript, stop: None }
    }

    fn heading(&mut self, session: &Value) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let style = self.io.style();
        let agent = &session["agent"];
        let mut parts = vec![format!("agent {} v{}", str(&agent["name"]), agent["version"])];
        match session["source"].as_str() {
            None => {}
            Some(source) if agent["id"] == source => parts.push("from its webhook".to_owned()),
            Some(source) => parts.push(format!("from {source}")),
        }
        parts.extend(session["title"].as_str().map(str::to_owned));
        match session["messages_waiting"].as_i64().unwrap_or(0) {
            0 => {}
            1 => parts.push("1 message waits".to_owned()),
            n => parts.push(format!("{n} messages wait")),
        }
        let status = str(&session["status"]);
        let id = style.strong(&one_line(str(&session["id"])));
        let rest = style.dim(&one_line(&parts.join(", ")));
        self.io.line(format!("{id}  {}  {rest}", style.paint(look(status), &one_line(status))))
    }

    fn show(&mut self, update: Update) -> Result<()> {
        if let Update::Event(event) = &update {
            match str(&event["type"]) {
                "session.status_idle" => {
                    self.stop = event["stop_reason"]["type"].as_str().map(str::to_owned);
                }
                kind @ "session.status_terminated" => self.stop = Some(kind.to_owned()),
                _ => {}
            }
        }
        let now = self.io.clock.now();
        let out = &mut self.io.out;
        match update {
            Update::Event(event) if self.json => self.io.json_line(&event)?,
            Update::Event(event) => self.transcript.event(out, &event)?,
            Update::Start { id } if !self.json => self.transcript.start(out, &id, now)?,
            Update::Delta { id, index, text } if !self.json => {
                self.transcript.delta(out, &id, index, &text)?;
            }
            Update::Lost(why) => {
                self.close()?;
                self.io.note(format!("the connection is lost ({why}), trying again"))?;
            }
            Update::CaughtUp
            | Update::Quiet
            | Update::Ended
            | Update::Start { .. }
            | Update::Delta { .. } => {}
        }
        Ok(self.io.out.flush()?)
    }

    fn close(&mut self) -> Result<()> {
        Ok(self.transcript.close(&mut self.io.out)?)
    }

    /// Whether the turn that was followed ended well.
    fn exit(&self) -> Exit {
        match self.stop.as_deref() {
            None | Some("end_turn") => Exit::Fine,
            Some(_) => Exit::Failed,
        }
    }
}
