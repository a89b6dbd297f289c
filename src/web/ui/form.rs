//! Forms: what was filled in, what is wrong with it, and how it becomes a request of the API.
//!
//! Invariants: a refused form answers 422, with what was filled in but never with a secret, and with the
//! message beside the field that it is about; a form that did something answers with a redirect, so a
//! reload repeats nothing. Left out: what the fields mean, which the API's functions know.

use std::fmt;

use askama::Template;
use axum::{
    Json,
    body::{Body, to_bytes},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    super::{auth::Actor, error, input},
    fault::Fault,
    guard::{Fields, Visitor},
    page as rendered,
    view::ticked,
};

/// How long an old value may be good beside the new one: seconds and words.
pub(super) const OVERLAPS: [(&str, &str); 4] =
    [("0", "at once"), ("3600", "in an hour"), ("86400", "in a day"), ("604800", "in a week")];

/// What has to be changed, and in which field where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    field: Option<String>,
    /// For beside the field.
    why: String,
    /// For the top of the page.
    text: String,
}

impl Wrong {
    /// What is wrong with this field, as a sentence.
    pub(super) fn of(field: &str, text: impl Into<String>) -> Wrong {
        let text = text.into();
        Wrong { field: Some(field.to_owned()), why: text.clone(), text }
    }

    /// What the API says: `auth.secret_name: is required` begins with `Secret name`.
    pub(super) fn said(message: &str) -> Wrong {
        let is_path = |it: &str| {
            it.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._[]".contains(&byte)
            })
        };
        let Some((path, why)) = message.split_once(": ").filter(|(path, _)| is_path(path)) else {
            return Wrong::from(message.to_owned());
        };
        // What a whole form is about need not be said.
        let path = ["auth.", "config.", "schedule."]
            .iter()
            .find_map(|it| path.strip_prefix(it))
            .unwrap_or(path);
        let text = sentence(&format!("{}: {why}", path.replace(['.', '_'], " ")));
        Wrong { field: Some(path.to_owned()), why: sentence(why), text }
    }

    /// The names that the field may have in a form, the likeliest first.
    fn names(&self) -> Vec<&str> {
        const OTHERS: [(&str, &str); 7] = [
            ("token", "value"),
            ("access_token", "value"),
            ("secret_value", "value"),
            ("networking", "hosts"),
            ("initial_events", "message"),
            ("model", "model"),
            ("scopes", "scope"),
        ];
        let Some(path) = self.field.as_deref() else { return Vec::new() };
        let first = path.split(['.', '[']).next().unwrap_or(path);
        let other = OTHERS.iter().find(|(it, _)| *it == first).map(|(_, name)| *name);
        [Some(path), other, Some(first)].into_iter().flatten().collect()
    }
}

impl From<String> for Wrong {
    fn from(text: String) -> Wrong {
        let text = sentence(&text);
        Wrong { field: None, why: text.clone(), text }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// With a capital at its beginning and a stop at its end.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase).into_iter().flatten();
    let mut out: String = first.chain(chars).collect();
    if !out.is_empty() && !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

/// What a form said that did not go through, so that nobody has to type it again.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) fields: Option<Fields>,
    pub(super) problem: Option<Wrong>,
}

impl Given {
    pub(super) fn wrong(fields: Fields, problem: impl Into<Wrong>) -> Given {
        Given { fields: Some(fields), problem: Some(problem.into()) }
    }

    /// Without what was filled in: all of it was secret, or nothing was.
    pub(super) fn only(problem: impl Into<Wrong>) -> Given {
        Given { fields: None, problem: Some(problem.into()) }
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.fields.as_ref().and_then(|fields| fields.text(name)).unwrap_or_default()
    }

    /// As it was filled in, or as it was before.
    pub(super) fn or<'a>(&'a self, name: &str, before: &'a str) -> &'a str {
        match &self.fields {
            Some(fields) => fields.text(name).unwrap_or_default(),
            None => before,
        }
    }

    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == value
    }

    /// The page, with the status that it deserves.
    pub(super) fn answer(&self, template: &impl Template) -> Result<Response, Fault> {
        match &self.problem {
            Some(problem) => refused(template, problem),
            None => rendered(template),
        }
    }
}

/// A page with a form that did not go through.
pub(super) fn refused(template: &impl Template, wrong: &Wrong) -> Result<Response, Fault> {
    let mut response = (StatusCode::UNPROCESSABLE_ENTITY, rendered(template)?).into_response();
    response.extensions_mut().insert(wrong.clone());
    Ok(response)
}

/// Puts the message of a refused form beside its field: of the form that is posted to this path.
pub(super) async fn mark(mut response: Response, path: &str) -> Response {
    let Some(wrong) = response.extensions_mut().remove::<Wrong>() else { return response };
    let (parts, body) = response.into_parts();
    // It is in memory already.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let marked = std::str::from_utf8(&bytes).ok().and_then(|html| beside(html, path, &wrong));
    Response::from_parts(parts, marked.map_or_else(|| Body::from(bytes), Body::from))
}

/// What somebody searches for: no signs that cannot be seen, and not more than a field takes.
pub(super) fn searched(text: &str) -> String {
    let seen = text.chars().filter(|it| !it.is_control()).take(SEARCHED_CHARS_MAX);
    seen.collect::<String>().trim().to_owned()
}

const SEARCHED_CHARS_MAX: usize = 256;

/// Templates escape quotes and angles, so nothing that was filled in looks like a tag of ours.
fn beside(html: &str, path: &str, wrong: &Wrong) -> Option<String> {
    let actions = [format!(" action=\"{path}\""), format!(" action=\"{path}#")];
    let begin = actions.iter().filter_map(|it| html.find(it.as_str())).min()?;
    let end = begin + html[begin..].find("</form>")?;
    let field = wrong.names().into_iter().find_map(|name| field(html, begin, end, name));
    let (tag, after) = field?;
    let why = ticked(&wrong.why);
    let (head, rest) = html.split_at(tag);
    let (element, tail) = rest.split_at(after - tag);
    // What hints at the field already is still said, after what is wrong.
    let hint = " aria-describedby=\"";
    let element = match element.contains(hint) {
        true => element.replacen(hint, &format!("{hint}wrong "), 1),
        false => element.replacen(' ', &format!("{hint}wrong\" "), 1),
    };
    let element = element.replacen(' ', " aria-invalid=\"true\" ", 1);
    Some(format!("{head}{element}<p class=\"wrong\" id=\"wrong\">{why}</p>{tail}"))
}

/// Where the element of a field begins and ends.
fn field(html: &str, begin: usize, end: usize, name: &str) -> Option<(usize, usize)> {
    let wanted = format!(" name=\"{name}\"");
    for (at, _) in html[begin..end].match_indices(&wanted) {
        let at = begin + at;
        let tag = html[..at].rfind('<')?;
        let head = &html[tag..at + html[at..].find('>')?];
        let after = match head.split(' ').next()? {
            "<input" if !head.contains("type=\"hidden\"") => at + html[at..].find('>')? + 1,
            "<select" => at + html[at..].find("</select>")? + "</select>".len(),
            "<textarea" => at + html[at..].find("</textarea>")? + "</textarea>".len(),
            _ => continue,
        };
        return Some((tag, after));
    }
    None
}

/// Whoever makes the change, for the API's functions.
pub(super) fn actor(visitor: &Visitor) -> Actor {
    Actor(visitor.name.clone())
}

/// A form as the body of a request.
pub(super) fn body(value: Value) -> Result<input::Fields, Fault> {
    input::Fields::of(value, "form").map_err(|problem| Fault::invalid(problem.to_string()))
}

/// A request's answer, or what its sender has to change.
pub(super) fn outcome<T>(result: error::Result<T>) -> Result<Result<T, Wrong>, Fault> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_of_caller() => Ok(Err(Wrong::said(error.message()))),
        Err(error) => Err(error.into()),
    }
}

/// The same of an answer in JSON.
pub(super) fn answer(result: error::Result<Json<Value>>) -> Result<Result<Value, Wrong>, Fault> {
    outcome(result.map(|Json(value)| value))
}

/// Commas and lines between values that a person lists in one field.
pub(super) fn listed(text: &str) -> Vec<&str> {
    text.split([',', '\n', '\r']).map(str::trim).filter(|it| !it.is_empty()).collect()
}

/// Lines of a field, without those that are empty.
pub(super) fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|it| !it.is_empty()).collect()
}

/// JSON of a field; nothing where it is empty.
pub(super) fn json_of(fields: &Fields, name: &str, word: &str) -> Result<Option<Value>, Wrong> {
    let text = fields.text(name).map(str::trim).filter(|it| !it.is_empty());
    let parsed = text.map(serde_json::from_str).transpose();
    parsed.map_err(|error| Wrong::of(name, format!("The {word} are no JSON: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_begin_with_the_name_of_the_field() {
        let check = |given: &str, said: &str| assert_eq!(Wrong::said(given).text, said);
        check("auth.secret_name: is required", "Secret name: is required.");
        check("schedule.expression: has 4 fields", "Expression: has 4 fields.");
        check("a key named `x` exists", "A key named `x` exists.");
        check("the model `a: b` is not there", "The model `a: b` is not there.");
        check("", "");
    }

    #[test]
    fn the_message_is_beside_its_field() {
        let html = "<form action=\"/other\"><input name=\"value\"></form>\
            <form method=\"post\" action=\"/v#x\"><input type=\"hidden\" name=\"a\">\
            <input id=\"v\" name=\"value\"><select name=\"kind\"><option>x</option></select></form>";
        let check = |message: &str, expected: &str| {
            let marked = beside(html, "/v", &Wrong::said(message));
            assert_eq!(marked.unwrap_or_default().matches(expected).count(), 1, "{message}");
        };
        let wrong = " aria-invalid=\"true\" aria-describedby=\"wrong\"";
        check(
            "auth.token: is <x>",
            &format!(
                "<input{wrong} id=\"v\" name=\"value\"><p class=\"wrong\" id=\"wrong\">Is &#60;x&#62;.</p>"
            ),
        );
        check("kind: no", "</select><p class=\"wrong\" id=\"wrong\">No.</p></form>");
        assert_eq!(beside(html, "/v", &Wrong::said("a: is hidden")), None);
        assert_eq!(beside(html, "/nothing", &Wrong::said("kind: no")), None);
    }

    #[test]
    fn values_are_listed_with_commas_or_lines() {
        assert_eq!(
            listed(" a.example, b.example\r\n\nc.example,"),
            ["a.example", "b.example", "c.example"]
        );
    }
}
