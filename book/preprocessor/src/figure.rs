//! `{{#figure pivot-root}}`: a drawing, inlined so that it takes the theme's colours.

use anyhow::{Context, Result, ensure};

use crate::{block, directive::Directive, workspace::Workspace};

/// `{{#figure NAME}}` puts `book/figures/NAME.svg` into a `<figure>`. Its `<title>` is what a screen
/// reader calls it, its `<desc>` becomes the caption, which may hold Markdown.
///
/// # Errors
/// If there is no such drawing, or it lacks one of the two.
pub fn figure(directive: &mut Directive, workspace: &Workspace) -> Result<String> {
    let name = directive.take("the figure's name")?;
    let svg = workspace.figure(&name)?;
    let start = svg.find("<svg").context("the file has no <svg>")?;
    let (svg, title) = take_element(&svg[start..], "title")?;
    let (svg, caption) = take_element(&svg, "desc")?;
    let svg = own_ids(&svg, &name);
    let svg = with_title(&svg, &name, &title)?;
    Ok(block::without_empty_lines(&format!(
        "<figure class=\"figure\" id=\"figure-{name}\">\n{svg}\n<figcaption>{}</figcaption>\n</figure>",
        block::html(&unescaped(&caption)),
    )))
}

/// The drawing without its first element of this name, and what that holds.
fn take_element(svg: &str, element: &str) -> Result<(String, String)> {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let missing = || format!("the drawing has no <{element}>");
    let start = svg.find(&open).with_context(missing)?;
    let end = start + svg[start..].find(&close).with_context(missing)?;
    let content = svg[start..end].split_once('>').with_context(missing)?.1.trim();
    ensure!(!content.is_empty(), "the drawing's <{element}> is empty");
    let rest = format!("{}{}", &svg[..start], &svg[end + close.len()..]);
    Ok((rest, content.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Puts the drawing's name before all of its ids that lack it: pages hold several drawings.
fn own_ids(svg: &str, name: &str) -> String {
    let ids = svg.split(" id=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    let ids = ids.filter(|(id, _)| !id.starts_with(&format!("{name}-")));
    ids.fold(svg.to_owned(), |svg, (id, _)| {
        svg.replace(&format!(" id=\"{id}\""), &format!(" id=\"{name}-{id}\""))
            .replace(&format!("url(#{id})"), &format!("url(#{name}-{id})"))
            .replace(&format!("href=\"#{id}\""), &format!("href=\"#{name}-{id}\""))
    })
}

/// The drawing as one image with a name, for who can't see it.
fn with_title(svg: &str, name: &str, title: &str) -> Result<String> {
    let end = svg.find('>').context("<svg> isn't closed")?;
    let tag: String = without_attribute(&without_attribute(&svg[..end], "role"), "aria-labelledby");
    let id = format!("{name}-figure-title");
    Ok(format!(
        "{tag} role=\"img\" aria-labelledby=\"{id}\">\n<title id=\"{id}\">{title}</title>{}",
        &svg[end + 1..]
    ))
}

fn without_attribute(tag: &str, attribute: &str) -> String {
    let start = tag.find(&format!(" {attribute}=\""));
    match start.and_then(|start| Some((start, tag[start..].splitn(3, '"').nth(2)?))) {
        Some((start, rest)) => format!("{}{rest}", &tag[..start]),
        None => tag.to_owned(),
    }
}

/// The text that XML stands for.
fn unescaped(xml: &str) -> String {
    xml.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::{own_ids, take_element, with_title};

    #[test]
    fn a_drawing_has_names_of_its_own() {
        let svg = "<svg role=\"img\" aria-labelledby=\"t d\" viewBox=\"0 0 1 1\"><marker id=\"end\"/>\
                   <g id=\"veth-g\"/><path marker-end=\"url(#end)\"/><use href=\"#end\"/></svg>";
        let own = own_ids(svg, "veth");
        assert!(own.contains(" id=\"veth-end\""), "{own}");
        assert!(own.contains("url(#veth-end)") && own.contains("href=\"#veth-end\""), "{own}");
        assert!(own.contains(" id=\"veth-g\""), "{own}");
        let titled = with_title(&own, "veth", "A cable").unwrap();
        assert!(titled.starts_with("<svg viewBox=\"0 0 1 1\" role=\"img\""), "{titled}");
        assert!(titled.contains("<title id=\"veth-figure-title\">A cable</title>"), "{titled}");
    }

    #[test]
    fn an_element_is_taken_out() {
        let svg = "<svg><title id=\"t\">A\n  cable</title><g/></svg>";
        let (rest, title) = take_element(svg, "title").unwrap();
        assert_eq!((&*rest, &*title), ("<svg><g/></svg>", "A cable"));
        assert!(take_element(svg, "desc").unwrap_err().to_string().contains("<desc>"));
    }
}
