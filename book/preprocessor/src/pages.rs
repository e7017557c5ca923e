//! The book as a whole: its pages, what each of them shows, and what is wrong with them.

use std::fmt;

use anyhow::{Context as _, Error, Result, bail, ensure};

use crate::{
    diff,
    directive::Directive,
    exercises, explorer, figure,
    functions::{self, Function},
    item, matrix, question, scenario, snapshot,
    workspace::Workspace,
};

/// A page of the book.
pub struct Page {
    /// Its name in the table of contents.
    pub name: String,
    /// Its file in `book/src`: `reference/glossary.md`.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

/// What a directive knows of its surroundings.
pub struct Context<'a> {
    /// What can be shown.
    pub workspace: &'a Workspace,
    /// All pages, as they are written.
    pub pages: &'a [Page],
    /// The page that the directive stands in.
    pub page: &'a Page,
    /// The public functions of the ladder's libraries.
    pub functions: &'a [Function],
}

impl Context<'_> {
    /// A link from this page to another one.
    pub fn link(&self, to: &Page) -> String {
        let up = "../".repeat(self.page.path.matches('/').count());
        format!("{up}{}.html", to.path.trim_end_matches(".md"))
    }
}

/// Something that the build is to fail for.
pub struct Problem {
    /// Where: a page and a line of it, a file.
    place: String,
    error: Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {:#}", self.place, self.error)
    }
}

/// The pages with everything that they show, and what is wrong: with them, or with what none shows.
pub fn make(workspace: &Workspace, pages: &[Page]) -> (Vec<String>, Vec<Problem>) {
    let mut problems = vec![];
    let functions = functions::of_workspace(workspace).unwrap_or_else(|error| {
        problems.push(Problem { place: "the ladder's libraries".into(), error });
        vec![]
    });
    let made = pages
        .iter()
        .map(|page| {
            let context = Context { workspace, pages, page, functions: &functions };
            Maker { context, problems: &mut problems, questions: 0 }.page()
        })
        .collect();
    (made, problems)
}

/// What the workspace holds for the book, and no page shows. The pages must have been made before.
///
/// # Errors
/// If a folder can't be read.
pub fn unused(workspace: &Workspace, pages: &[Page]) -> Result<Vec<Problem>> {
    let files = workspace.unused()?.into_iter();
    let mut problems: Vec<Problem> = files
        .map(|place| Problem { place, error: Error::msg("no page of the book shows it") })
        .collect();
    problems.extend(functions::unlisted(workspace, pages)?.into_iter().map(|library| Problem {
        place: format!("library {library}"),
        error: Error::msg(format!("no page has {{{{#functions {library}}}}}")),
    }));
    Ok(problems)
}

/// Makes one page.
struct Maker<'a> {
    context: Context<'a>,
    problems: &'a mut Vec<Problem>,
    questions: usize,
}

/// What a page shows where something is missing.
const MISSING: &str = "<span class=\"missing\">Something is missing here.</span>";

impl Maker<'_> {
    fn page(mut self) -> String {
        let page = self.context.page;
        let mut made = String::new();
        let mut lines = (1..).zip(page.text.lines());
        while let Some((number, line)) = lines.next() {
            if line.trim_end() == "```question" {
                let question = self.question(lines.by_ref().map(|(_, line)| line));
                made += &self.told(number, "question", question);
            } else if let Some(language @ ("rust" | "diff")) = line.trim().strip_prefix("```") {
                let error =
                    "no code is written into a page: {{#item}} and {{#diff}} show what is compiled";
                made += &self.told(number, &format!("```{language}"), Err(Error::msg(error)));
            } else {
                made += &self.line(number, line);
            }
            made.push('\n');
        }
        made
    }

    /// A question, with an id of its own in the whole book: it can be printed as one page.
    fn question<'t>(&mut self, mut lines: impl Iterator<Item = &'t str>) -> Result<String> {
        self.questions += 1;
        let mut text = String::new();
        loop {
            match lines.next().context("it has no end")? {
                line if line.trim_end() == "```" => break,
                line => text += &format!("{line}\n"),
            }
        }
        let page = self.context.page.path.trim_end_matches(".md").replace('/', "-");
        question::question(&text, &format!("question-{page}-{}", self.questions))
    }

    /// A line with what its directives show. `\{{#` is no directive.
    fn line(&mut self, number: usize, line: &str) -> String {
        let mut made = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("{{#") {
            let Some((inner, after)) = after.split_once("}}") else { break };
            if let Some(before) = before.strip_suffix('\\') {
                made += &format!("{before}{{{{#{inner}}}}}");
            } else {
                let alone = line.trim_end() == format!("{{{{#{inner}}}}}");
                let shown = self.directive(inner, alone);
                made += before;
                made += &self.told(number, &format!("{{{{#{inner}}}}}"), shown);
            }
            rest = after;
        }
        made + rest
    }

    /// Remembers an error, with its place.
    fn told(&mut self, line: usize, what: &str, shown: Result<String>) -> String {
        shown.unwrap_or_else(|error| {
            let place = format!("book/src/{}:{line}: {what}", self.context.page.path);
            self.problems.push(Problem { place, error });
            MISSING.into()
        })
    }

    fn directive(&self, text: &str, alone: bool) -> Result<String> {
        let mut directive = Directive::parse(text)?;
        let shown = show(&mut directive, &self.context)?;
        directive.end()?;
        let in_line = directive.kind == "test";
        ensure!(in_line || alone, "it must stand on a line of its own, without indentation");
        Ok(if in_line { shown } else { format!("\n{shown}") })
    }
}

fn show(directive: &mut Directive, context: &Context) -> Result<String> {
    let workspace = context.workspace;
    match &*directive.kind {
        "item" => item::item(directive, context),
        "snapshot" => snapshot::snapshot(directive, workspace),
        "transcript" => snapshot::transcript(directive, workspace),
        "diff" => diff::diff(directive, workspace),
        "figure" => figure::figure(directive, workspace),
        "exercises" => exercises::exercises(directive, context),
        "test" => scenario::test(directive, workspace),
        "functions" => functions::functions(directive, context),
        "explorer" => explorer::explorer(workspace),
        "matrix" => matrix::matrix(context),
        other => bail!("there is no directive `{other}`"),
    }
}
