//! The forms in which a page shows something: a fenced block, a text in HTML.

/// A fenced block of Markdown in the language `language`, whatever the text holds.
pub fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

/// A text for HTML, its special characters written as entities.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Some Markdown as HTML; a single paragraph without its `<p>`, so that it can stand in a line.
pub fn html(markdown: &str) -> String {
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, pulldown_cmark::Parser::new(markdown));
    let html = html.trim();
    let single = html.strip_prefix("<p>").and_then(|rest| rest.strip_suffix("</p>"));
    single.filter(|inner| !inner.contains("<p>")).unwrap_or(html).to_owned()
}

/// HTML that Markdown leaves alone: without an empty line, which would end the block.
pub fn without_empty_lines(html: &str) -> String {
    html.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{fenced, html};

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(fenced("text", "a"), "```text\na\n```\n");
        assert_eq!(fenced("text", "a ```` b\n"), "`````text\na ```` b\n`````\n");
    }

    #[test]
    fn markdown_in_a_line() {
        assert_eq!(html("*a* `<b>`"), "<em>a</em> <code>&lt;b&gt;</code>");
        assert_eq!(html("a\n\nb"), "<p>a</p>\n<p>b</p>");
    }
}
