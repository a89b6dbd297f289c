//! Structured logs on standard error, in words or as JSON.
//!
//! A line says what happened, and the spans around it say for whom: request, session, turn, trace.
//! Invariants: an event is one line, whatever is in its fields, and no control character of a payload
//! or a header reaches the terminal or the collector as it is. Left out: what is said at which level,
//! which docs/operations.md tells.

use std::{
    fmt::{self, Write},
    panic,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer, debug_fn},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    clock::Clock,
    config::{self, LogFormat},
    domain::text::{is_deceptive, is_plain, one_line},
};

/// Changes the filter while the program runs.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl LogFilter {
    pub(super) fn set(&self, filter: &str) {
        if let Err(error) = self.0.reload(parse(filter)) {
            tracing::warn!(%error, "the log filter was not changed");
        }
    }
}

/// Starts logging. A second start, as in tests, changes nothing.
pub(super) fn start(options: &config::Log) -> LogFilter {
    let (filter, handle) = reload::Layer::new(parse(&options.filter));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match options.format {
        LogFormat::Json => registry
            .with(layer().fmt_fields(JsonFields::new()).event_format(JsonLine(Clock::system())))
            .try_init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            let colour = std::io::stderr().is_terminal();
            let fields = debug_fn(write_field).delimited(" ");
            registry
                .with(layer().with_ansi(colour).with_target(false).fmt_fields(fields))
                .try_init()
        }
    };
    if started.is_ok() {
        panic::set_hook(Box::new(panicked));
    }
    LogFilter(handle)
}

fn parse(filter: &str) -> EnvFilter {
    let parsed = EnvFilter::builder().parse_lossy(filter);
    // It writes down what MCP servers say and the URLs that they are at, which may hold tokens: that
    // is for whoever asks for it by name.
    match "rmcp=off".parse() {
        Ok(quiet) if !filter.contains("rmcp") => parsed.add_directive(quiet),
        _ => parsed,
    }
}

/// A panic is a bug, and a line like any other.
fn panicked(panic: &panic::PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("without a text");
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, panic = text, "a panic: this is a bug");
}

/// `name=value`, or the value alone where it is the message.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        out.write_str(field.name())?;
        out.write_str("=")?;
    }
    write!(OneLine(out), "{value:?}")
}

/// Writes on as [`one_line`] has it.
struct OneLine<'a, 'b>(&'a mut Writer<'b>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) { self.0.write_str(text) } else { self.0.write_str(&one_line(text)) }
    }
}

/// One flat object for each line: what the event says, then what the spans around it say, so that one
/// word finds everything about a session.
struct JsonLine(Clock);

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), self.0.now().to_string().into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("target".to_owned(), metadata.target().into());
        let mut fields = Fields::default();
        event.record(&mut fields);
        line.extend(fields.message.map(|message| ("message".to_owned(), message)));
        line.extend(fields.others);
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let written =
                extensions.get::<FormattedFields<N>>().map_or("", |fields| &fields.fields);
            let Ok(fields) = serde_json::from_str::<Map<String, Value>>(written) else { continue };
            for (name, value) in fields {
                line.entry(name).or_insert(value);
            }
        }
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        // What JSON may hold as it is and a terminal may act on; only texts can contain it.
        for char in text.chars() {
            match char {
                char if char.is_control() || is_deceptive(char) => {
                    let mut units = [0; 2];
                    for unit in char.encode_utf16(&mut units) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
                char => out.write_char(char)?,
            }
        }
        out.write_char('\n')
    }
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    message: Option<Value>,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        match field.name() {
            "message" => self.message = Some(value.into()),
            name => drop(self.others.insert(name.to_owned(), value.into())),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
