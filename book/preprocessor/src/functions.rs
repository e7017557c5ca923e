//! `{{#functions mnt}}`: all public functions of a library, as a table.

use anyhow::{Context as _, Result, ensure};
use syn::UseTree;

use crate::{
    block,
    directive::Directive,
    pages::{Context, Page},
    source::{self, Item},
    workspace::{Library, Workspace},
};

/// A function that a library offers.
pub struct Function {
    /// Its name as code outside of the library says it: `mnt::mount::bind`.
    pub path: String,
    library: String,
    /// Its name inside of its file: `bind`, `Gate::wait`.
    name: String,
    file: String,
    line: usize,
    sentence: String,
}

/// `{{#functions LIBRARY}}`: each public function with the first sentence of its documentation, its
/// place in the source, and the pages that speak of it.
///
/// # Errors
/// If there is no such library, or a source file of it can't be read.
pub fn functions(directive: &mut Directive, context: &Context) -> Result<String> {
    let library = directive.take("the library's name")?;
    let functions = context.functions.iter().filter(|function| function.library == library);
    let rows: Vec<String> = functions.map(|function| row(function, context)).collect();
    ensure!(!rows.is_empty(), "Cargo.toml names no step's library `{library}` with functions");
    Ok(format!(
        "<div class=\"table-wrapper\">\n<table class=\"functions\">\n\
         <thead><tr><th>function</th><th>what it does, and where it's spoken of</th></tr></thead>\n\
         <tbody>\n{}</tbody>\n</table>\n</div>\n",
        rows.concat()
    ))
}

/// The libraries whose functions no page lists.
///
/// # Errors
/// If the workspace's manifest can't be read.
pub fn unlisted(workspace: &Workspace, pages: &[Page]) -> Result<Vec<String>> {
    let mut libraries: Vec<String> = workspace.libraries()?.into_iter().map(|l| l.name).collect();
    libraries.retain(|name| table_of(name, pages).is_none());
    Ok(libraries)
}

/// The place in the book that describes the function `name` of `file`, if it's a public one.
pub fn link(context: &Context, file: &str, name: &str) -> Option<String> {
    let here = |function: &&Function| function.file == file && function.name == name;
    let function = context.functions.iter().find(here)?;
    let page = table_of(&function.library, context.pages)?;
    Some(format!("{}#{}", context.link(page), anchor(function)))
}

/// The page with the table of a library.
fn table_of<'a>(library: &str, pages: &'a [Page]) -> Option<&'a Page> {
    pages.iter().find(|page| page.text.contains(&format!("{{{{#functions {library}}}}}")))
}

fn anchor(function: &Function) -> String {
    function.path.replace("::", ".")
}

fn row(function: &Function, context: &Context) -> String {
    let Function { path, file, line, sentence, .. } = function;
    let pages: Vec<String> = context
        .pages
        .iter()
        .filter(|page| shows(page, function))
        .map(|page| {
            let name = page.name.split(':').next().unwrap_or(&page.name);
            format!("<a href=\"{}\">{}</a>", context.link(page), block::escaped(name))
        })
        .collect();
    let file = file.split_once("/src/").map_or(&**file, |(_, file)| file);
    format!(
        "<tr id=\"{}\"><td><code>{path}</code><br><small>{file}, line {line}</small></td>\
         <td>{}{}</td></tr>\n",
        anchor(function),
        block::html(&without_links(sentence)),
        if pages.is_empty() {
            String::new()
        } else {
            format!("<br><small>{}</small>", pages.join(", "))
        },
    )
}

/// Whether a page shows a function's code, or names it.
fn shows(page: &Page, function: &Function) -> bool {
    let Function { path, name, file, .. } = function;
    let owner = name.split_once("::").map(|(owner, _)| format!("impl {owner}"));
    let items = [Some(name.clone()), owner].into_iter().flatten();
    let ends = |text: &str| !text.starts_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
    let mut codes = items.map(|item| format!("#item {file} {item}"));
    if codes.any(|code| page.text.split(&code).skip(1).any(ends)) {
        return true;
    }
    // Elsewhere than in the step's own chapter, `exec` or `open` alone may be something else.
    let own = file.get(..6) == page.path.get(..6);
    let clear = own || name.contains("::") || name.contains('_');
    let mut names = [Some(path), clear.then_some(name)].into_iter().flatten();
    names.any(|name| ["`", "("].iter().any(|end| page.text.contains(&format!("`{name}{end}"))))
}

/// A sentence of a doc comment without links, which only rustdoc can follow.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((label, after)) = after.split_once(']') else { break };
        plain += before;
        plain += label;
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_target, after)) => after,
            None => after,
        };
    }
    plain + rest
}

/// The public functions of all libraries, in the order of the steps and of their files.
///
/// # Errors
/// If a source file can't be read.
pub fn of_workspace(workspace: &Workspace) -> Result<Vec<Function>> {
    let mut found = vec![];
    for Library { name, folder } in workspace.libraries()? {
        let folder = format!("{folder}/src");
        let file = format!("{folder}/lib.rs");
        let root = Module { library: name.clone(), file, folder, path: name.clone() };
        root.gather(workspace, &|_| Some(name.clone()), &mut found)?;
    }
    Ok(found)
}

/// A source file, and the folder of the modules in it.
struct Module {
    library: String,
    file: String,
    folder: String,
    path: String,
}

/// The public path of the module through which an item of this name can be reached.
type Reached<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Module {
    fn gather(
        &self,
        workspace: &Workspace,
        reached: Reached,
        to: &mut Vec<Function>,
    ) -> Result<()> {
        let text = workspace.read(&self.file)?;
        let items = source::items(&text).with_context(|| format!("in {}", self.file))?;
        for item in items.iter().filter(|item| item.function && is_public(item, &items)) {
            let top = item.name.split("::").next().unwrap_or_default();
            let Some(module) = reached(top) else { continue };
            to.push(Function {
                path: format!("{module}::{}", item.name),
                library: self.library.clone(),
                name: item.name.clone(),
                file: self.file.clone(),
                line: *item.lines.start(),
                sentence: item.first_sentence(),
            });
        }
        let exported = exported(&text)?;
        for module in items.iter().filter(|item| item.signature.ends_with(';')) {
            let Some(inner) = self.inner(workspace, module) else { continue };
            let through = |name: &str| {
                let pair = |(of, shown): &(String, String)| {
                    *of == module.name && (shown == name || shown == "*")
                };
                let exported = exported.iter().any(pair).then(|| self.path.clone());
                exported.or_else(|| module.public.then(|| inner.path.clone()))
            };
            inner.gather(workspace, &through, to)?;
        }
        Ok(())
    }

    /// The file of a module that is declared here: `mod name;`.
    fn inner(&self, workspace: &Workspace, declared: &Item) -> Option<Module> {
        let name = &declared.name;
        if !declared.signature.trim_end_matches(';').ends_with(&format!("mod {name}")) {
            return None;
        }
        let folder = format!("{}/{name}", self.folder);
        let file = format!("{folder}.rs");
        let file = if workspace.has(&file) { file } else { format!("{folder}/mod.rs") };
        let path = format!("{}::{name}", self.path);
        Some(Module { library: self.library.clone(), file, folder, path })
    }
}

/// Whether a function can be named outside: the type or module that it belongs to is public too.
fn is_public(function: &Item, items: &[Item]) -> bool {
    let owner = function.name.rsplit_once("::").map(|(owner, _)| owner);
    let owners = items.iter().filter(|item| Some(&*item.name) == owner);
    function.public && owners.into_iter().all(|owner| owner.public)
}

/// The module and the name of each `pub use module::name` of a file.
fn exported(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = vec![];
    for item in syn::parse_file(text)?.items {
        let syn::Item::Use(item) = item else { continue };
        if let (syn::Visibility::Public(_), UseTree::Path(path)) = (&item.vis, &item.tree) {
            leaves(&path.tree, &mut |name| pairs.push((path.ident.to_string(), name)));
        }
    }
    Ok(pairs)
}

fn leaves(tree: &UseTree, leaf: &mut dyn FnMut(String)) {
    match tree {
        UseTree::Name(name) => leaf(name.ident.to_string()),
        UseTree::Rename(name) => leaf(name.ident.to_string()),
        UseTree::Glob(_) => leaf("*".into()),
        UseTree::Path(path) => leaves(&path.tree, leaf),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::{exported, without_links};

    #[test]
    fn links_of_rustdoc_become_text() {
        assert_eq!(without_links("See [`a`] and [b](c::d), [e"), "See `a` and b, [e");
    }

    #[test]
    fn what_a_library_exports() {
        let pairs = exported("pub use a::{B, c as d};\nuse e::f;\npub use g::*;\n").unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(module, name)| (&**module, &**name)).collect();
        assert_eq!(pairs, [("a", "B"), ("a", "c"), ("g", "*")]);
    }
}
