//! `{{#item step03-mnt-pivot/src/lib.rs make_private}}`: a piece of the workspace's code.

use anyhow::{Context as _, Result, bail};

use crate::{block, directive::Directive, functions, pages::Context, source};

/// `{{#item FILE NAME}}` is the item without its doc comment; `docs` adds it, `body` leaves only what
/// stands between the braces.
///
/// # Errors
/// If there is no such file, or no such item in it.
pub fn item(directive: &mut Directive, context: &Context) -> Result<String> {
    let (docs, body) = (directive.option("docs"), directive.option("body"));
    let file = directive.take("the file's path in the workspace")?;
    let name = directive.take_all("the item's name")?;
    let text = context.workspace.read(&file)?;
    let item = source::find(&text, &name).with_context(|| format!("in {file}"))?;
    let code = match (docs, body) {
        (true, true) => bail!("it's either `docs` or `body`"),
        (true, false) => item.code_with_docs(),
        (false, true) => item.body_code().context("it has no body")?,
        (false, false) => item.code(),
    };
    let place = format!("<code>{}</code>, line {}", block::escaped(&file), item.lines.start());
    let place = match functions::link(context, &file, &name) {
        Some(link) => format!("<a href=\"{link}\">{place}</a>"),
        None => place,
    };
    let code = block::fenced("rust,noplayground", &code);
    Ok(format!("<figure class=\"code\">\n<figcaption>{place}</figcaption>\n\n{code}\n</figure>\n"))
}
