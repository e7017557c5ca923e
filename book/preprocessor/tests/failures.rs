//! The preprocessor as mdBook runs it: a small workspace whose book is right, and all that can be
//! wrong with it, a thing at a time.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A workspace with one step and all that its page shows.
struct Sample {
    dir: TempDir,
    page: String,
    strict: bool,
    mdbook: &'static str,
}

const PAGE: &str = r#"# Step 1
{{#item step01-uts/src/lib.rs set_names}}
{{#functions uts}}
{{#functions pid}}
{{#diff 2}}
{{#snapshot step01-explain from "clone3"}}
{{#transcript step01-run}}
{{#figure ladder}}
{{#exercises 1}}
{{#exercises all}}
It works {{#test step01::names}}, and \{{#this}} is no directive.

```question
What is it?

- [ ] This :: No, that.
- [x] That :: Yes.
```
"#;

const FILES: [(&str, &str); 11] = [
    (
        "Cargo.toml",
        "[workspace.dependencies]\nuts = { path = \"step01-uts\" }\npid = { path = \"step02-pid\" }\nanyhow = \"1\"\n",
    ),
    (
        "step01-uts/src/lib.rs",
        "mod names;\npub use names::unique;\n/// Sets [`both`]. Or none.\npub fn set_names() {\n    work();\n}\nfn work() {}\n",
    ),
    ("step01-uts/src/names.rs", "/// A name.\npub fn unique() {}\npub fn hidden() {}\n"),
    ("step01-uts/src/main.rs", "fn main() {\n    one();\n}\n"),
    ("step02-pid/src/main.rs", "fn main() {\n    two();\n}\n"),
    ("step02-pid/src/lib.rs", "/// Number 1.\npub fn init() {}\n"),
    (
        "tests/tests/snapshots/step02-diff.snap",
        "---\nsource: x\n---\n--- step01-uts/src/main.rs\n+++ step02-pid/src/main.rs\n@@ -1,3 +1,3 @@\n fn main() {\n-    one();\n+    two();\n }\n",
    ),
    ("tests/tests/snapshots/step01-explain.snap", "---\nsource: x\n---\n1 first\n2 clone3(A|B)\n"),
    ("tests/tests/snapshots/transcript-step01-run.snap", "---\nsource: x\n---\n$ hostname\nbox\n"),
    ("tests/tests/snapshots/scenarios-ladder.snap", "---\nsource: x\n---\nstep01::names\n"),
    (
        "book/figures/ladder.svg",
        "<svg viewBox=\"0 0 1 1\">\n\n<title>A ladder</title><desc>It has `8` steps.</desc></svg>\n",
    ),
];

const EXERCISES: &str = r#"[[exercise]]
id = "1.1"
title = "Name it"
kind = "complete"
goal = "To name."
task = "Do *it*."
points = 1
minutes = 5
needs = "lab"
cut = []
hints = ["First.", "Second."]
"#;

impl Sample {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let sample = Sample {
            dir,
            page: PAGE.into(),
            strict: true,
            mdbook: mdbook_preprocessor::MDBOOK_VERSION,
        };
        FILES.iter().for_each(|(file, text)| sample.write(file, text));
        sample.write("tests/exercises.toml", EXERCISES);
        sample
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.dir.path().join(file)).unwrap();
    }

    /// Runs the preprocessor with what mdBook would send it.
    fn run(&self) -> Output {
        let chapter = serde_json::json!({
            "name": "Step 1: names", "content": self.page, "number": null, "sub_items": [],
            "path": "step01.md", "source_path": "step01.md", "parent_names": [],
        });
        let input = serde_json::json!([
            {
                "root": self.dir.path().join("book"),
                "config": { "preprocessor": { "workspace": { "strict": self.strict } } },
                "renderer": "html",
                "mdbook_version": self.mdbook,
            },
            { "items": [{ "Chapter": chapter }] },
        ]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_book"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().unwrap();
        running.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        running.wait_with_output().unwrap()
    }

    /// What the page has become.
    fn made(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let book: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        book["items"][0]["Chapter"]["content"].as_str().unwrap().to_owned()
    }

    /// The build fails, and its messages hold all of `words`.
    fn fails_with(&self, words: &[&str]) {
        let output = self.run();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "the build succeeded: {told}");
        assert!(output.stdout.is_empty(), "mdBook would take this for a book");
        words.iter().for_each(|word| assert!(told.contains(word), "no `{word}` in: {told}"));
    }

    /// As [`Sample::fails_with`], for a page in which `line` stands as well, as line 3.
    fn line_fails_with(line: &str, words: &[&str]) {
        let mut sample = Sample::new();
        sample.page = sample.page.replacen("{{#functions", &format!("{line}\n{{{{#functions"), 1);
        sample.fails_with(&[&["book/src/step01.md:3: "], words].concat());
    }
}

#[test]
fn a_page_shows_what_is_there() {
    let made = Sample::new().made();
    let shown = [
        "<a href=\"step01.html#uts.set_names\"><code>step01-uts/src/lib.rs</code>, line 4</a>",
        "```rust,noplayground\npub fn set_names() {\n    work();\n}\n```",
        "<code>uts::set_names</code><br><small>lib.rs, line 4</small></td><td>Sets <code>both</code>.<br>",
        "<tr id=\"uts.unique\">",
        "```text\n2 clone3(A|B)\n```",
        "-    one();\n+    two();\n",
        "```console\n$ hostname\nbox\n```",
        "<figcaption>It has <code>8</code> steps.</figcaption>",
        "### Exercise 1.1: Name it {#exercise-1-1}",
        "<a href=\"step01.html#exercise-1-1\">1.1 Name it</a></td><td>complete</td><td>1</td>",
        "<code>step01::<wbr>names</code></span>, and {{#this}} is no directive.",
        "<details class=\"answer correct\"><summary><span>That</span></summary>",
    ];
    shown.iter().for_each(|part| assert!(made.contains(part), "no `{part}` in: {made}"));
    assert!(!made.contains("hidden"), "a function that nobody can call: {made}");
}

#[test]
fn a_missing_item() {
    let line = "{{#item step01-uts/src/lib.rs set_name}}";
    Sample::line_fails_with(line, &[line, "no item `set_name`", "set_names"]);
    Sample::line_fails_with("{{#item step01-uts/src/no.rs x}}", &["can't read", "no.rs"]);
    Sample::line_fails_with("{{#item ../../etc/passwd x}}", &["below the workspace"]);
}

#[test]
fn a_missing_snapshot() {
    let line = "{{#snapshot step01-explian}}";
    Sample::line_fails_with(line, &[line, "near to it is step01-explain"]);
    Sample::line_fails_with("{{#snapshot step01-explain from \"execve\"}}", &["`execve`"]);
    Sample::line_fails_with("{{#transcript step01-walk}}", &["transcript-step01-walk"]);
    let sample = Sample::new();
    sample.remove("tests/tests/snapshots/step01-explain.snap");
    sample.fails_with(&["step01-explain.snap"]);
}

#[test]
fn a_snapshot_that_no_page_shows() {
    let sample = Sample::new();
    sample.write("tests/tests/snapshots/step01-error.snap", "---\n---\nx\n");
    sample.fails_with(&["snapshots/step01-error.snap: no page of the book shows it"]);
}

#[test]
fn a_difference_that_is_out_of_date() {
    let sample = Sample::new();
    sample.write("step02-pid/src/main.rs", "fn main() {\n    three();\n}\n");
    sample.fails_with(&["{{#diff 2}}", "snapshot `step02-diff` isn't the difference"]);
    Sample::line_fails_with("{{#diff 1}}", &["there is no step 0"]);
    Sample::line_fails_with("{{#diff 3}}", &["there is no step 3"]);
}

#[test]
fn a_missing_figure() {
    Sample::line_fails_with("{{#figure laddre}}", &["laddre.svg", "near to it is ladder"]);
    let sample = Sample::new();
    sample.write("book/figures/more.svg", "<svg/>");
    sample.fails_with(&["book/figures/more.svg: no page of the book shows it"]);
    sample.write("book/figures/ladder.svg", "<svg><title>A ladder</title></svg>");
    sample.fails_with(&["the drawing has no <desc>"]);
}

#[test]
fn an_unknown_test() {
    Sample::line_fails_with("See {{#test step01::name}}.", &["no test `step01::name`"]);
}

#[test]
fn a_bad_question() {
    let mut sample = Sample::new();
    sample.page = sample.page.replace("[x]", "[ ]");
    sample.fails_with(&["book/src/step01.md:13: question: no answer is right"]);
}

#[test]
fn exercises_that_are_not_there() {
    Sample::line_fails_with("{{#exercises 2}}", &["no exercise for step 2"]);
    let sample = Sample::new();
    sample.write("tests/exercises.toml", &EXERCISES.replace("points", "point"));
    sample.fails_with(&["tests/exercises.toml", "points"]);
}

#[test]
fn functions_that_no_page_lists() {
    let mut sample = Sample::new();
    sample.page = sample.page.replace("{{#functions uts}}\n", "");
    sample.fails_with(&["library uts: no page has {{#functions uts}}"]);
    Sample::line_fails_with("{{#functions utz}}", &["utz"]);
}

#[test]
fn a_directive_that_is_none() {
    Sample::line_fails_with("{{#include x.md}}", &["no directive `include`"]);
    Sample::line_fails_with("So {{#figure ladder}}", &["a line of its own"]);
    Sample::line_fails_with("{{#figure ladder wide}}", &["`wide` isn't understood"]);
    Sample::line_fails_with("{{#figure}}", &["the figure's name is missing"]);
}

#[test]
fn a_piece_of_code_that_nobody_compiles() {
    let code = "```rust\nfn made_up() {}\n```";
    Sample::line_fails_with(code, &["```rust: no code is written into a page", "{{#item"]);
    let open = "```question\nWhy?";
    let mut sample = Sample::new();
    sample.page += open;
    sample.fails_with(&["question: it has no end"]);
}

#[test]
fn another_mdbook() {
    let mut sample = Sample::new();
    sample.mdbook = "0.4.52";
    sample.fails_with(&["needs mdBook 0.5, and this is 0.4.52"]);
}

#[test]
fn while_the_book_is_written_it_can_be_built() {
    let mut sample = Sample::new();
    sample.strict = false;
    sample.page += "\n{{#figure none}}\n";
    sample.write("tests/tests/snapshots/step01-error.snap", "---\n---\nx\n");
    assert!(sample.made().contains("class=\"missing\""));
}
