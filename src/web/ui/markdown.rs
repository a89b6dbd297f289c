//! What agents write, as HTML.
//!
//! A model's words are as untrusted as what it has read. Invariant: the tags are those in this file,
//! everything else is escaped; raw HTML is shown as the text it is; a link leads to the web or to a
//! mail program and to nothing that runs; a picture is a link, because loading it would tell its
//! server that somebody looked.

use std::fmt::Write;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd};

use crate::domain::text::{first_chars, printable};

/// Characters that are shown; the API has the rest.
const CHARS_MAX: usize = 200_000;

/// Levels of lists and quotes that are drawn; deeper ones stay at this one.
const DEPTH_MAX: usize = 24;

pub(super) fn to_html(text: &str) -> String {
    let (text, cut) = first_chars(text, CHARS_MAX);
    let text = printable(text);
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(&text, options) {
        writer.take(event);
    }
    if cut {
        writer.out.push_str("<p class=\"cut-note\">… cut here; the API has the rest.</p>");
    }
    writer.out
}

#[derive(Default)]
struct Writer {
    out: String,
    /// What closes the open elements that can be nested.
    open: Vec<&'static str>,
    in_head: bool,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text) => self.text(&text),
            Event::Code(text) => {
                self.out.push_str("<code>");
                self.text(&text);
                self.out.push_str("</code>");
            }
            // Agents break lines where they want them broken.
            Event::SoftBreak | Event::HardBreak => self.out.push_str("<br>"),
            Event::Rule => self.out.push_str("<hr>"),
            Event::TaskListMarker(done) => self.out.push_str(if done { "☑ " } else { "☐ " }),
            Event::FootnoteReference(name) => self.text(&name),
        }
    }

    fn text(&mut self, text: &str) {
        escape(text, &mut self.out);
    }

    fn nest(&mut self, open: &str, close: &'static str) {
        if self.open.len() < DEPTH_MAX {
            self.out.push_str(open);
            self.open.push(close);
        } else {
            self.open.push("");
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.out.push_str("<p>"),
            // The page has the first levels.
            Tag::Heading { .. } => self.out.push_str("<h3>"),
            Tag::BlockQuote(_) => self.nest("<blockquote>", "</blockquote>"),
            // Raw HTML is shown as what it is: a piece of code.
            Tag::HtmlBlock => self.out.push_str("<pre tabindex=\"0\"><code>"),
            Tag::CodeBlock(kind) => {
                self.out.push_str("<pre tabindex=\"0\"");
                if let CodeBlockKind::Fenced(name) = kind
                    && let Some(name) = name.split_whitespace().next()
                {
                    self.out.push_str(" data-language=\"");
                    self.text(name);
                    self.out.push('"');
                }
                self.out.push_str("><code>");
            }
            Tag::List(None) => self.nest("<ul>", "</ul>"),
            Tag::List(Some(1)) => self.nest("<ol>", "</ol>"),
            Tag::List(Some(first)) => {
                let open = format!("<ol start=\"{first}\">");
                self.nest(&open, "</ol>");
            }
            Tag::Item => self.nest("<li>", "</li>"),
            Tag::Emphasis => self.out.push_str("<em>"),
            Tag::Strong => self.out.push_str("<strong>"),
            Tag::Strikethrough => self.out.push_str("<del>"),
            Tag::Link { dest_url, .. } => self.link(&dest_url),
            Tag::Image { dest_url, .. } => {
                self.link(&dest_url);
                self.out.push_str("picture: ");
            }
            Tag::Table(_) => self.out.push_str("<div class=\"scrolls\" tabindex=\"0\"><table>"),
            Tag::TableHead => {
                self.in_head = true;
                self.out.push_str("<thead><tr>");
            }
            Tag::TableRow => self.out.push_str("<tr>"),
            Tag::TableCell => self.out.push_str(if self.in_head { "<th>" } else { "<td>" }),
            _ => {}
        }
    }

    fn link(&mut self, to: &CowStr<'_>) {
        let safe = ["https://", "http://", "mailto:"].iter().any(|scheme| {
            to.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        if safe {
            self.out.push_str("<a rel=\"noopener noreferrer nofollow\" target=\"_blank\" href=\"");
            self.text(to);
            let _ = write!(self.out, "\">");
        } else {
            self.out.push_str("<a>");
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.out.push_str("</p>"),
            TagEnd::Heading(_) => self.out.push_str("</h3>"),
            TagEnd::CodeBlock | TagEnd::HtmlBlock => self.out.push_str("</code></pre>"),
            TagEnd::BlockQuote(_) | TagEnd::List(_) | TagEnd::Item => {
                let close = self.open.pop().unwrap_or_default();
                self.out.push_str(close);
            }
            TagEnd::Emphasis => self.out.push_str("</em>"),
            TagEnd::Strong => self.out.push_str("</strong>"),
            TagEnd::Strikethrough => self.out.push_str("</del>"),
            TagEnd::Link | TagEnd::Image => self.out.push_str("</a>"),
            TagEnd::Table => self.out.push_str("</tbody></table></div>"),
            TagEnd::TableHead => {
                self.in_head = false;
                self.out.push_str("</tr></thead><tbody>");
            }
            TagEnd::TableRow => self.out.push_str("</tr>"),
            TagEnd::TableCell => self.out.push_str(if self.in_head { "</th>" } else { "</td>" }),
            _ => {}
        }
    }
}

pub(super) fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&to_html(text));
    }

    #[test]
    fn what_agents_write_looks_like_it() {
        check(
            "**bold** and `code`\nnext line\n\n- one\n- two",
            expect![[
                r#"<p><strong>bold</strong> and <code>code</code><br>next line</p><ul><li>one</li><li>two</li></ul>"#
            ]],
        );
        check(
            "| a | b |\n|---|---|\n| 1 | 2 |",
            expect![[
                r#"<div class="scrolls" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table></div>"#
            ]],
        );
        check(
            "```rust\nlet a = \"<b>\";\n```",
            expect![[
                r#"<pre tabindex="0" data-language="rust"><code>let a = &quot;&lt;b&gt;&quot;;
</code></pre>"#
            ]],
        );
    }

    #[test]
    fn nothing_in_it_runs() {
        check(
            "<script>alert(1)</script> <img src=x onerror=alert(1)>",
            expect![[
                r#"<pre tabindex="0"><code>&lt;script&gt;alert(1)&lt;/script&gt; &lt;img src=x onerror=alert(1)&gt;</code></pre>"#
            ]],
        );
        check("[a](javascript:alert(1))", expect!["<p><a>a</a></p>"]);
        check(
            "[a](JaVaScRiPt:alert(1)) [b](data:text/html,x)",
            expect!["<p><a>a</a> <a>b</a></p>"],
        );
        check(
            "[a](https://example.com/?a=\"b\"&c)",
            expect![[
                r#"<p><a rel="noopener noreferrer nofollow" target="_blank" href="https://example.com/?a=&quot;b&quot;&amp;c">a</a></p>"#
            ]],
        );
        check(
            "![alt](https://example.com/pixel.png)",
            expect![[
                r#"<p><a rel="noopener noreferrer nofollow" target="_blank" href="https://example.com/pixel.png">picture: alt</a></p>"#
            ]],
        );
        check(
            "```\"><script>\nx\n```",
            expect![[r#"<pre tabindex="0" data-language="&quot;&gt;&lt;script&gt;"><code>x
</code></pre>"#]],
        );
        check("right\u{202e}left", expect!["<p>right\\u{202e}left</p>"]);
    }

    #[test]
    fn depth_is_bounded() {
        let html = to_html(&"> ".repeat(500));
        assert!(html.matches("<blockquote>").count() <= DEPTH_MAX);
        assert_eq!(html.matches("<blockquote>").count(), html.matches("</blockquote>").count());
    }
}
