//! The preprocessor that mdBook runs: it reads the book from its standard input, and writes it back
//! with everything that the pages show.

use std::{
    env, io,
    process::{self, ExitCode},
};

use anyhow::{Context, Result, ensure};
use book::{
    pages::{Page, make, unused},
    workspace::Workspace,
};
use mdbook_preprocessor::{PreprocessorContext, book::Book, parse_input};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["supports", renderer] => process::exit((renderer != "html").into()),
        [] => {}
        _ => {
            eprintln!("`mdbook build book` runs this; it takes no arguments");
            return ExitCode::FAILURE;
        }
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let input = io::read_to_string(io::stdin())?;
    check_version(&input)?;
    let (context, mut book) = parse_input(input.as_bytes())?;
    let root = context.root.parent().context("the book lies in the workspace")?;
    let workspace = Workspace::new(root);
    let pages = pages(&book);
    let (made, mut problems) = make(&workspace, &pages);
    let strict = is_strict(&context)?;
    if strict {
        problems.extend(unused(&workspace, &pages)?);
    }
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    ensure!(problems.is_empty() || !strict, "{} things are wrong with the book", problems.len());
    let mut made = pages.iter().zip(made);
    book.for_each_chapter_mut(|chapter| {
        if let Some((_, text)) = made.next() {
            chapter.content = text;
        }
    });
    Ok(serde_json::to_writer(io::stdout(), &book)?)
}

/// Tells who uses another mdBook what to do: what it sends can't be understood otherwise.
fn check_version(input: &str) -> Result<()> {
    let sent: serde_json::Value = serde_json::from_str(input)?;
    let version = sent[0]["mdbook_version"].as_str().unwrap_or("unknown");
    ensure!(
        version.starts_with("0.5."),
        "the book needs mdBook 0.5, and this is {version}: cargo install mdbook --version ^0.5"
    );
    Ok(())
}

/// `strict = false` in `book.toml` lets the book be built while it's being written.
fn is_strict(context: &PreprocessorContext) -> Result<bool> {
    Ok(context.config.get::<bool>("preprocessor.workspace.strict")?.unwrap_or(true))
}

/// The pages in the order in which [`Book::for_each_chapter_mut`] meets them.
fn pages(book: &Book) -> Vec<Page> {
    let mut pages = vec![];
    book.clone().for_each_chapter_mut(|chapter| {
        let path = chapter.source_path.as_deref().unwrap_or("".as_ref());
        pages.push(Page {
            name: chapter.name.clone(),
            path: path.to_string_lossy().into_owned(),
            text: std::mem::take(&mut chapter.content),
        });
    });
    pages
}
