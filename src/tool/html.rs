//! The text of an HTML page, for a reader that wants the words and where links lead.
//!
//! One pass from left to right, in time that grows with the page. Left out: everything that decides
//! how a page looks, and correctness for pages that are broken on purpose.

/// Elements whose inside is no text.
const SILENT: [&str; 7] = ["script", "style", "noscript", "template", "svg", "iframe", "head"];

/// Elements that begin a line.
const BLOCKS: [&str; 25] = [
    "p",
    "div",
    "br",
    "li",
    "ul",
    "ol",
    "tr",
    "table",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "pre",
    "section",
    "article",
    "header",
    "footer",
    "main",
    "nav",
    "blockquote",
    "hr",
    "dt",
    "dd",
];

/// Longest link that is shown.
const LINK_BYTES_MAX: usize = 500;

pub(super) fn to_text(html: &str) -> String {
    let mut out = Text::default();
    let mut rest = html;
    let mut links: Vec<Option<String>> = Vec::new();
    while let Some(at) = rest.find('<') {
        out.push(&rest[..at]);
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let is_tag =
            rest[1..].starts_with(|it: char| it.is_ascii_alphabetic() || "/!?".contains(it));
        if !is_tag {
            out.push("<");
            rest = &rest[1..];
            continue;
        }
        let Some(end) = end_of_tag(rest) else { break };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let (closes, tag) = tag.strip_prefix('/').map_or((false, tag), |tag| (true, tag));
        let name_end = tag.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let name = tag[..name_end].to_ascii_lowercase();
        if !closes && name == "title" {
            let end = find_end(rest, "title").unwrap_or(rest.len());
            out.push(&rest[..end]);
            out.line();
            rest = &rest[end..];
        } else if !closes && name == "head" {
            // Only its title is for readers, and it is looked for in there.
        } else if !closes && SILENT.contains(&name.as_str()) && !tag.ends_with('/') {
            rest = find_end(rest, &name).map_or("", |end| &rest[end..]);
        } else if BLOCKS.contains(&name.as_str()) {
            out.line();
            match name.as_str() {
                "li" if !closes => out.push("- "),
                "h1" | "h2" | "h3" | "h4" | "h5" | "h6" if !closes => out.push("# "),
                _ => {}
            }
        } else if name == "td" || name == "th" {
            out.push(" ");
        } else if name == "a" && !closes {
            links.push(attribute(tag, "href").filter(|it| is_shown(it)));
        } else if name == "a"
            && let Some(Some(link)) = links.pop()
        {
            out.push(" (");
            out.push(&link);
            out.push(")");
        }
    }
    out.push(rest);
    out.finish()
}

fn is_shown(link: &str) -> bool {
    let leads = ["http://", "https://", "/"].iter().any(|start| link.starts_with(start));
    leads && link.len() <= LINK_BYTES_MAX
}

/// The `>` that ends a tag, which is none in quotes.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match quote {
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if byte == b'>' => return Some(at),
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            None => {}
        }
    }
    // A quote that is never closed: the tag ends where one can.
    quote.and_then(|_| text.find('>'))
}

/// Where the end tag of an element begins.
fn find_end(text: &str, name: &str) -> Option<usize> {
    text.match_indices("</").map(|(at, _)| at).find(|at| {
        let tag = &text.as_bytes()[at + 2..];
        tag.len() >= name.len() && tag[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let lower = tag.to_ascii_lowercase();
    let at = lower.find(&format!("{name}="))? + name.len() + 1;
    let value = &tag[at..];
    let value = match value.as_bytes().first()? {
        quote @ (b'"' | b'\'') => value[1..].split(char::from(*quote)).next()?,
        _ => value.split([' ', '\t', '\n', '/']).next()?,
    };
    Some(value.trim().to_owned())
}

/// Text with its spaces squeezed.
#[derive(Default)]
struct Text {
    out: String,
    /// A space is due before the next word.
    space: bool,
}

impl Text {
    fn push(&mut self, raw: &str) {
        let text = decoded(raw);
        for char in text.chars() {
            if char.is_whitespace() {
                self.space = true;
            } else {
                if self.space && !self.out.is_empty() && !self.out.ends_with('\n') {
                    self.out.push(' ');
                }
                self.space = false;
                self.out.push(char);
            }
        }
    }

    fn line(&mut self) {
        self.space = false;
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn finish(self) -> String {
        self.out.trim().to_owned()
    }
}

/// With the usual character references replaced.
fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        let found = end.and_then(|end| Some((reference(&rest[1..end])?, end)));
        match found {
            Some((char, end)) => {
                out.push(char);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn reference(name: &str) -> Option<char> {
    let number = name.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    });
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "copy" => '©',
        _ => char::from_u32(number?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_links_are_left() {
        let html = "<!doctype html><html><head><title>The &lt;title&gt;</title>\
            <style>p { color: red }</style><script>if (a < b) alert('</p>')</script></head>\
            <body><h1>Big\n  news</h1><p>One <b>bold</b>&nbsp;word &amp; <a class=x \
            href=\"https://a.example/?b=1\">a link</a>, <a href='#x'>none</a>.</p>\
            <!-- <p>hidden</p> --><ul><li>first<li>second</ul>\
            <table><tr><td>a<td title=\">\">b</tr></table>1 < 2 &#8212; &#x41;&bogus;</body></html>";
        assert_eq!(
            to_text(html),
            "The <title>\n\n# Big news\n\nOne bold word & a link (https://a.example/?b=1), none.\n\n\
             - first\n- second\n\na b\n\n1 < 2 — A&bogus;"
        );
    }

    #[test]
    fn broken_pages_end() {
        for html in
            ["<", "<p", "<!--", "<script>", "<a href=", "</", "<a href='x>y", "&#xFFFFFFFF;"]
        {
            let _ = to_text(html);
        }
        let deep = "<div><a href=\"/x\">".repeat(50_000);
        assert!(to_text(&deep).is_empty());
        let odd = "ü<ü>é</ü>".repeat(10);
        assert!(to_text(&odd).contains('ü'));
    }
}
