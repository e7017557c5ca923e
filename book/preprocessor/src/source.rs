//! Finds a piece of Rust source by its name.
//!
//! The workspace's sources carry no markers for the book or the course. A function is found as
//! `make_private`, a type as `Cable`, a method as `IdMap::root`, a block as `impl Drop for Cable`:
//! by parsing the file, so that neither a comment nor a string can be taken for it.

use std::ops::{Range, RangeInclusive};

use anyhow::{Context, Result, bail};
use proc_macro2::Span;
use syn::{Attribute, ImplItem, Item as Syntax, Meta, TraitItem, Type, spanned::Spanned};

/// A piece of a source file. The ranges count bytes of the file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its name in the file: `make_private`, `IdMap::root`.
    pub name: String,
    /// Its first and its last line, counted from 1, with attributes and without its doc comment.
    pub lines: RangeInclusive<usize>,
    /// Everything: doc comment, attributes, and the item itself to its last byte.
    pub range: Range<usize>,
    /// The doc comment as it's written, with its slashes; empty if there is none.
    pub docs: &'a str,
    /// A function up to its body, a type up to its fields; everything, if there is no body.
    pub signature: &'a str,
    /// The body of a function, or what a type, trait, block or module holds; with its braces.
    pub body: Option<Range<usize>>,
    /// Whether it's declared with `pub`, or part of a trait that is, and not hidden from the docs.
    pub public: bool,
    /// Whether it's a function or a method.
    pub function: bool,
    text: &'a str,
    /// Where the item begins when its doc comment is left out.
    start: usize,
}

impl<'a> Item<'a> {
    /// The item without its doc comment, its indentation taken away.
    pub fn code(&self) -> String {
        dedent(self.text, self.start..self.range.end)
    }

    /// The item with its doc comment, its indentation taken away.
    pub fn code_with_docs(&self) -> String {
        dedent(self.text, self.range.clone())
    }

    /// What stands between the braces of its body, its indentation taken away.
    pub fn body_code(&self) -> Option<String> {
        let body = self.body.clone()?;
        let inner = self.text[body.start + 1..body.end - 1].trim_matches('\n').trim_end();
        let offset = inner.as_ptr() as usize - self.text.as_ptr() as usize;
        Some(dedent(self.text, offset..offset + inner.len()))
    }

    /// The first sentence of its doc comment, as one line.
    pub fn first_sentence(&self) -> String {
        let lines = self.docs.lines().map(|line| line.trim().trim_start_matches('/').trim());
        let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        let paragraph = paragraph.join(" ");
        match paragraph.split_once(". ") {
            Some((sentence, _)) => format!("{sentence}."),
            None => paragraph,
        }
    }
}

/// Finds one item by its name.
///
/// # Errors
/// If the text is no Rust, if it has no such item (the error lists those that it has), or more
/// than one.
pub fn find<'a>(text: &'a str, name: &str) -> Result<Item<'a>> {
    let all = items(text)?;
    let mut found = all.iter().filter(|item| item.name == name);
    match (found.next(), found.next()) {
        (Some(item), None) => Ok(item.clone()),
        (Some(one), Some(other)) => bail!(
            "there is more than one `{name}`, in lines {} and {}",
            one.lines.start(),
            other.lines.start()
        ),
        (None, _) => {
            let names: Vec<&str> = all.iter().map(|item| &*item.name).collect();
            bail!("there is no item `{name}`; there are {}", names.join(", "))
        }
    }
}

/// All items of a file that have a name, in their order, tests left out.
///
/// # Errors
/// If the text is no Rust.
pub fn items(text: &str) -> Result<Vec<Item<'_>>> {
    let file = syn::parse_file(text).map_err(|error| {
        let start = error.span().start();
        anyhow::anyhow!("line {}: {error}", start.line)
    });
    let mut all = Collector { text, items: vec![] };
    all.walk(&file.context("this is no Rust that can be parsed")?.items, "");
    Ok(all.items)
}

/// Gathers the items while it walks through a file.
struct Collector<'a> {
    text: &'a str,
    items: Vec<Item<'a>>,
}

/// What an item is made of, before it has been cut out of the text.
struct Parts<'s> {
    name: String,
    attributes: &'s [Attribute],
    whole: Span,
    /// From its opening to its closing brace.
    body: Option<Range<usize>>,
    public: bool,
    function: bool,
}

impl<'a> Collector<'a> {
    fn walk(&mut self, items: &[Syntax], path: &str) {
        for item in items {
            self.item(item, path);
        }
    }

    fn item(&mut self, item: &Syntax, path: &str) {
        let public =
            |visibility: &syn::Visibility| matches!(visibility, syn::Visibility::Public(_));
        let (name, attributes, visible, body) = match item {
            Syntax::Fn(item) => {
                let body = Some(item.block.span().byte_range());
                let name = join(path, &item.sig.ident);
                return self.add(Parts {
                    name,
                    attributes: &item.attrs,
                    whole: item.span(),
                    body,
                    public: public(&item.vis),
                    function: true,
                });
            }
            Syntax::Impl(item) => return self.implementation(item, path),
            Syntax::Trait(item) => return self.interface(item, path, public(&item.vis)),
            Syntax::Mod(item) => return self.module(item, path, public(&item.vis)),
            Syntax::Const(item) => (&item.ident, &item.attrs, public(&item.vis), None),
            Syntax::Static(item) => (&item.ident, &item.attrs, public(&item.vis), None),
            Syntax::Type(item) => (&item.ident, &item.attrs, public(&item.vis), None),
            Syntax::Enum(item) => {
                let body = braces(item.brace_token.span);
                (&item.ident, &item.attrs, public(&item.vis), Some(body))
            }
            Syntax::Struct(item) => {
                let body = match &item.fields {
                    syn::Fields::Named(fields) => Some(braces(fields.brace_token.span)),
                    _ => None,
                };
                (&item.ident, &item.attrs, public(&item.vis), body)
            }
            Syntax::Macro(item) => match &item.ident {
                Some(ident) => (ident, &item.attrs, false, None),
                None => return,
            },
            _ => return,
        };
        let name = join(path, name);
        let whole = item.span();
        self.add(Parts { name, attributes, whole, body, public: visible, function: false });
    }

    /// An `impl` block, named as it's written without its generics, and its methods.
    fn implementation(&mut self, block: &syn::ItemImpl, path: &str) {
        let Some(of) = type_name(&block.self_ty) else { return };
        let of_trait = block.trait_.as_ref().and_then(|(path, _)| path.segments.last());
        let name = match of_trait {
            Some(segment) => format!("impl {} for {of}", segment.ident),
            None => format!("impl {of}"),
        };
        let body = Some(braces(block.brace_token.span));
        let whole = block.span();
        let attributes = &block.attrs;
        self.add(Parts { name, attributes, whole, body, public: false, function: false });
        let path = if path.is_empty() { of } else { format!("{path}::{of}") };
        for item in &block.items {
            match item {
                ImplItem::Fn(method) => self.add(Parts {
                    name: join(&path, &method.sig.ident),
                    attributes: &method.attrs,
                    whole: method.span(),
                    body: Some(method.block.span().byte_range()),
                    public: matches!(method.vis, syn::Visibility::Public(_)),
                    function: true,
                }),
                ImplItem::Const(constant) => self.add(Parts {
                    name: join(&path, &constant.ident),
                    attributes: &constant.attrs,
                    whole: constant.span(),
                    body: None,
                    public: matches!(constant.vis, syn::Visibility::Public(_)),
                    function: false,
                }),
                _ => {}
            }
        }
    }

    fn interface(&mut self, item: &syn::ItemTrait, path: &str, public: bool) {
        let public = public && !item.attrs.iter().any(is_hidden);
        let name = join(path, &item.ident);
        let body = Some(braces(item.brace_token.span));
        let (attributes, whole) = (&item.attrs, item.span());
        self.add(Parts { name: name.clone(), attributes, whole, body, public, function: false });
        for method in &item.items {
            if let TraitItem::Fn(method) = method {
                self.add(Parts {
                    name: join(&name, &method.sig.ident),
                    attributes: &method.attrs,
                    whole: method.span(),
                    body: method.default.as_ref().map(|block| block.span().byte_range()),
                    public,
                    function: true,
                });
            }
        }
    }

    fn module(&mut self, item: &syn::ItemMod, path: &str, public: bool) {
        if item.attrs.iter().any(is_for_tests) {
            return;
        }
        let name = join(path, &item.ident);
        let body = item.content.as_ref().map(|(brace, _)| braces(brace.span));
        let (attributes, whole) = (&item.attrs, item.span());
        self.add(Parts { name: name.clone(), attributes, whole, body, public, function: false });
        if let Some((_, items)) = &item.content {
            self.walk(items, &name);
        }
    }

    fn add(&mut self, parts: Parts) {
        let text = self.text;
        let whole = parts.whole.byte_range();
        let docs: Vec<&Attribute> = parts.attributes.iter().filter(|a| is_doc(a)).collect();
        let docs = match (docs.first(), docs.last()) {
            (Some(first), Some(last)) => {
                first.span().byte_range().start..last.span().byte_range().end
            }
            _ => whole.start..whole.start,
        };
        // Attributes can stand before or after the doc comment; nearly always, they follow it.
        let start = if docs.start == whole.start {
            docs.end + text[docs.end..].len() - text[docs.end..].trim_start().len()
        } else {
            whole.start
        };
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        self.items.push(Item {
            name: parts.name,
            lines: line(start)..=line(whole.end),
            docs: &text[docs],
            signature: match &parts.body {
                Some(body) => text[start..body.start].trim_end(),
                None => &text[start..whole.end],
            },
            range: whole,
            body: parts.body,
            public: parts.public && !parts.attributes.iter().any(is_hidden),
            function: parts.function,
            text,
            start,
        });
    }
}

fn join(path: &str, name: &syn::Ident) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}::{name}") }
}

/// The last name of a type: `IdMap` for `crate::IdMap<'a>`.
fn type_name(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        Type::Reference(reference) => type_name(&reference.elem),
        _ => None,
    }
}

fn braces(span: proc_macro2::extra::DelimSpan) -> Range<usize> {
    span.open().byte_range().start..span.close().byte_range().end
}

fn is_doc(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::NameValue(meta) if meta.path.is_ident("doc"))
}

fn is_for_tests(attribute: &Attribute) -> bool {
    is_word(attribute, "cfg", "test")
}

fn is_hidden(attribute: &Attribute) -> bool {
    is_word(attribute, "doc", "hidden")
}

/// Whether it's `#[name(word)]`.
fn is_word(attribute: &Attribute, name: &str, word: &str) -> bool {
    let list = matches!(attribute.meta, Meta::List(_)) && attribute.path().is_ident(name);
    list && attribute.parse_args::<syn::Ident>().is_ok_and(|found| found == word)
}

/// Whole lines of a text without the indentation that they share.
fn dedent(text: &str, range: Range<usize>) -> String {
    let before = text[..range.start].trim_end_matches([' ', '\t']);
    let begins_line = before.is_empty() || before.ends_with('\n');
    let first = if begins_line { before.len() } else { range.start };
    let lines = || text[first..range.end].lines();
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let shared =
        lines().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or_default();
    let cut: Vec<&str> = lines().map(|line| line.get(shared..).unwrap_or_default()).collect();
    cut.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{find, items};

    const TEXT: &str = r#"//! A file with "fn fake() {}" in it.
use std::fmt;

/// Ends a line. And says more.
///
/// # Errors
/// None.
#[inline]
pub fn first(of: &[u8]) -> u8 {
    // é fn second() {}
    if of.is_empty() {
        return 0;
    }
    of[0]
}

pub struct Map<'a> {
    /// A field.
    pub name: &'a str,
}

impl<'a> Map<'a> {
    /// The root.
    pub fn root(&self) -> &str {
        self.name
    }

    fn hidden(&self) {}

    #[doc(hidden)]
    pub fn for_macros(&self) {}
}

impl fmt::Display for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub const SIZE: usize = 3;

macro_rules! call {
    () => {};
}

mod inner {
    pub fn deep() {}
}

#[cfg(test)]
mod tests {
    fn first() {}
}
"#;

    #[test]
    fn a_function_with_its_parts() {
        let item = find(TEXT, "first").unwrap();
        assert_eq!(item.lines, 8..=15);
        assert!(item.docs.starts_with("/// Ends a line."), "{}", item.docs);
        assert!(item.docs.ends_with("/// None."), "{}", item.docs);
        assert_eq!(item.signature, "#[inline]\npub fn first(of: &[u8]) -> u8");
        assert_eq!(item.first_sentence(), "Ends a line.");
        assert!(item.code().starts_with("#[inline]\npub fn first"), "{}", item.code());
        assert!(item.code_with_docs().starts_with("/// Ends"), "{}", item.code_with_docs());
        let body = item.body.clone().unwrap();
        assert!(TEXT[body.clone()].starts_with("{\n    // é"), "{}", &TEXT[body.clone()]);
        assert!(TEXT[body].ends_with("of[0]\n}"));
        assert_eq!(
            item.body_code().unwrap(),
            "// é fn second() {}\nif of.is_empty() {\n    return 0;\n}\nof[0]"
        );
        assert!(item.public && item.function);
    }

    #[test]
    fn a_method_loses_its_indentation() {
        let item = find(TEXT, "Map::root").unwrap();
        assert_eq!(item.code(), "pub fn root(&self) -> &str {\n    self.name\n}");
        assert_eq!(item.body_code().unwrap(), "self.name");
        assert_eq!(item.docs, "/// The root.");
        assert!(!find(TEXT, "Map::hidden").unwrap().public);
        assert!(!find(TEXT, "Map::for_macros").unwrap().public);
        assert_eq!(find(TEXT, "Map::hidden").unwrap().body_code().unwrap(), "");
    }

    #[test]
    fn all_kinds_of_items() {
        let names: Vec<String> = items(TEXT).unwrap().into_iter().map(|item| item.name).collect();
        let expected = [
            "first",
            "Map",
            "impl Map",
            "Map::root",
            "Map::hidden",
            "Map::for_macros",
            "impl Display for Map",
            "Map::fmt",
            "SIZE",
            "call",
            "inner",
            "inner::deep",
        ];
        assert_eq!(names, expected);
        assert_eq!(find(TEXT, "SIZE").unwrap().code(), "pub const SIZE: usize = 3;");
        assert_eq!(find(TEXT, "Map").unwrap().signature, "pub struct Map<'a>");
        assert!(
            find(TEXT, "impl Display for Map").unwrap().code().starts_with("impl fmt::Display")
        );
    }

    #[test]
    fn what_is_missing_is_told() {
        let error = find(TEXT, "second").unwrap_err().to_string();
        assert!(error.contains("no item `second`") && error.contains("Map::root"), "{error}");
        let error = format!("{:#}", find("fn broken( {", "broken").unwrap_err());
        assert!(error.contains("line 1"), "{error}");
        let twice = "#[cfg(a)]\nfn twice() {}\n#[cfg(b)]\nfn twice() {}\n";
        let error = find(twice, "twice").unwrap_err().to_string();
        assert!(error.contains("lines 1 and 3"), "{error}");
    }
}
