//! The forms of a result, held against what their readers demand.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    run::finish,
    scenario::{HERE, Scenario},
};

use crate::submission::{Submission, course};

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("grade::formats", HERE, formats)]
}

fn formats() -> Result<()> {
    let bad = Submission::of_steps(1)?;
    bad.misbehave("eprintln!(\"<&\\\">\\u{1b}[31m\"); std::process::exit(0);")?;
    let write = |format: &str| -> Result<String> {
        let mut command = course();
        command.args(["grade", "--steps", "1", "--seed", "7", "--format", format]);
        Ok(finish(command.arg(bad.dir.path()))?.success()?.stdout)
    };
    gradescope(&serde_json::from_str(&write("gradescope")?)?)?;
    classroom(&serde_json::from_str(&write("classroom")?)?)?;
    junit(&write("junit")?)?;
    let text = write("text")?;
    ensure!(text.contains("--seed 7 repeats it") && text.contains("✗ 1.1"), "{text}");
    Ok(())
}

fn only(value: &Value, keys: &[&str]) -> Result<()> {
    for key in value.as_object().context("no object")?.keys() {
        ensure!(keys.contains(&key.as_str()), "nobody reads {key}");
    }
    Ok(())
}

/// <https://gradescope-autograders.readthedocs.io/en/latest/specs/>
fn gradescope(result: &Value) -> Result<()> {
    only(
        result,
        &[
            "score",
            "execution_time",
            "output",
            "output_format",
            "stdout_visibility",
            "visibility",
            "tests",
        ],
    )?;
    ensure!(
        ["hidden", "visible", "after_due_date", "after_published"]
            .map(Value::from)
            .contains(&result["stdout_visibility"])
    );
    ensure!(result["execution_time"].is_u64(), "whole seconds");
    for test in result["tests"].as_array().context("no tests")? {
        only(
            test,
            &[
                "score",
                "max_score",
                "status",
                "name",
                "name_format",
                "number",
                "output",
                "output_format",
                "tags",
                "visibility",
            ],
        )?;
        let number = |key: &str| test[key].as_f64().context("no number");
        ensure!((0. ..=number("max_score")?).contains(&number("score")?), "{test:#}");
        let passed = number("score")? == number("max_score")?;
        ensure!(test["status"] == if passed { "passed" } else { "failed" }, "{test:#}");
        ensure!(
            test["name"].is_string() && test["number"].is_string() && test["output"].is_string()
        );
    }
    Ok(())
}

fn classroom(result: &Value) -> Result<()> {
    ensure!(result["version"] == 1 && result["status"] == "fail", "{result:#}");
    let tests = result["tests"].as_array().context("no tests")?;
    for test in tests {
        ensure!(["pass", "fail", "error"].map(Value::from).contains(&test["status"]), "{test:#}");
        ensure!(test["name"].is_string() && test["score"].is_number(), "{test:#}");
    }
    ensure!(result["max_score"].as_f64() > Some(0.), "{result:#}");
    Ok(())
}

/// Well-formed, with sums that are right, and no character that XML doesn't have.
fn junit(xml: &str) -> Result<()> {
    ensure!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites "));
    ensure!(
        !xml.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')),
        "control characters"
    );
    let mut open: Vec<&str> = vec![];
    for tag in xml.split('<').skip(2) {
        let (tag, text) = tag.split_once('>').context("a tag has no end")?;
        ensure!(!text.contains('>'), "a > in a text: {text}");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => ensure!(open.pop() == Some(name), "</{name}> closes nothing"),
            (None, true) => {}
            (None, false) => open.push(tag.split(' ').next().unwrap_or_default()),
        }
        ensure!(tag.matches('"').count() % 2 == 0, "quotes in <{tag}>");
    }
    ensure!(open.is_empty(), "{open:?} stays open");
    let sum = |name: &str| -> Result<usize> {
        let rest = xml.split(&format!(" {name}=\"")).nth(1).context("no sum")?;
        Ok(rest.split('"').next().unwrap_or_default().parse()?)
    };
    ensure!(sum("tests")? == xml.matches("<testcase ").count());
    ensure!(sum("failures")? == xml.matches("<failure ").count() && sum("failures")? > 0);
    ensure!(sum("skipped")? == xml.matches("<skipped ").count());
    Ok(())
}
