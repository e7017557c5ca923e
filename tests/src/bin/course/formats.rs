//! The forms in which results are wanted elsewhere.

use std::fmt::Write as _;

use ::tests::scenario::Verdict;
use serde_json::{Value, json};

use crate::grade::{Graded, GradedExercise, message};

/// How to print a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// All that is known
    Json,
    /// JUnit's XML, which most build servers read
    Junit,
    /// Gradescope's results.json
    Gradescope,
    /// The result that GitHub Classroom's autograding reporter reads, before its base64
    Classroom,
}

/// The result in that form.
pub fn write(graded: &Graded, format: Format) -> String {
    match format {
        Format::Text => text(graded),
        Format::Json => pretty(&serde_json::to_value(graded).expect("a result is JSON")),
        Format::Junit => junit(graded),
        Format::Gradescope => pretty(&gradescope(graded)),
        Format::Classroom => pretty(&classroom(graded)),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// One line: for many submissions.
pub fn line(graded: &Graded) -> String {
    let mut line = format!("{:<24} {:>6.2} of {}  ", graded.name, graded.points(), graded.of());
    let mut before = "";
    for exercise in &graded.exercises {
        let step = exercise.id.split('.').next().unwrap_or_default();
        if step != before {
            let _ = write!(line, " {step}:");
            before = step;
        }
        line.push(mark(exercise));
    }
    for (step, complaint) in &graded.complaints {
        let first = complaint.lines().find(|line| line.contains("error") || !line.contains("warn"));
        let _ = write!(line, "  step {step}: {}", first.unwrap_or_default());
    }
    format!("{line}  {:.0} s", graded.seconds)
}

fn mark(exercise: &GradedExercise) -> char {
    match exercise.result {
        Verdict::Passed => '✓',
        Verdict::Skipped => '?',
        Verdict::Failed if exercise.points > 0. => '~',
        Verdict::Failed => '✗',
    }
}

fn text(graded: &Graded) -> String {
    let mut text = String::new();
    for exercise in &graded.exercises {
        let GradedExercise { id, title, points, of, .. } = exercise;
        let _ = writeln!(text, "{} {id} {title}: {points} of {of}", mark(exercise));
        for line in message(exercise).lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    for (step, complaint) in &graded.complaints {
        let _ = writeln!(text, "\nstep {step}:\n{complaint}");
    }
    let (points, of) = (graded.points(), graded.of());
    let _ = writeln!(
        text,
        "\n{}: {points:.2} of {of} points, after {:.0} s; --seed {} repeats it",
        graded.name, graded.seconds, graded.seed
    );
    text
}

/// What is said of an exercise, its step's complaint included.
fn output(graded: &Graded, exercise: &GradedExercise) -> String {
    let step = exercise.id.split('.').next().and_then(|step| step.parse().ok()).unwrap_or(0);
    let complaint = graded.complaints.get(&step).map(|text| format!("{text}\n"));
    format!("{}{}", complaint.unwrap_or_default(), message(exercise))
}

/// Source: [Autograder specifications](https://gradescope-autograders.readthedocs.io/en/latest/specs/),
/// "Output format".
fn gradescope(graded: &Graded) -> Value {
    let test = |exercise: &GradedExercise| {
        let passed = exercise.result == Verdict::Passed;
        json!({
            "name": exercise.title,
            "number": exercise.id,
            "score": exercise.points,
            "max_score": exercise.of,
            "status": if passed { "passed" } else { "failed" },
            "output": output(graded, exercise),
            "output_format": "text",
            "visibility": "visible",
        })
    };
    json!({
        "execution_time": graded.seconds.ceil() as u64,
        "stdout_visibility": "hidden",
        "output": format!("Seed {}", graded.seed),
        "tests": graded.exercises.iter().map(test).collect::<Vec<_>>(),
    })
}

/// Source: [autograding-command-grader](https://github.com/classroom-resources/autograding-command-grader).
fn classroom(graded: &Graded) -> Value {
    let test = |exercise: &GradedExercise| {
        let passed = exercise.result == Verdict::Passed;
        json!({
            "name": format!("{} {}", exercise.id, exercise.title),
            "status": if passed { "pass" } else { "fail" },
            "score": exercise.points,
            "message": output(graded, exercise),
            "test_code": format!("cargo course check {}", exercise.id),
            "filename": "",
            "line_no": 0,
            "execution_time": 0,
        })
    };
    let all = graded.exercises.iter().all(|exercise| exercise.result == Verdict::Passed);
    json!({
        "version": 1,
        "status": if all { "pass" } else { "fail" },
        "max_score": graded.of(),
        "tests": graded.exercises.iter().map(test).collect::<Vec<_>>(),
    })
}

/// Source: [JUnit XML](https://github.com/testmoapp/junitxml), the form that build servers share.
fn junit(graded: &Graded) -> String {
    let count = |kind| graded.exercises.iter().filter(|e| e.result == kind).count();
    let sums = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\"",
        graded.exercises.len(),
        count(Verdict::Failed),
        count(Verdict::Skipped),
        graded.seconds
    );
    let name = escaped(&graded.name);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {sums}>\n  <testsuite name=\"{name}\" {sums}>\n"
    );
    for exercise in &graded.exercises {
        let step = exercise.id.split('.').next().unwrap_or_default();
        let title = escaped(&format!("{} {}", exercise.id, exercise.title));
        let _ =
            write!(xml, "    <testcase classname=\"step{step:0>2}\" name=\"{title}\" time=\"0\">");
        let said = escaped(&output(graded, exercise));
        let points = format!("{} of {} points", exercise.points, exercise.of);
        match exercise.result {
            Verdict::Passed => {}
            Verdict::Skipped => xml += &format!("<skipped message=\"{points}\"/>"),
            Verdict::Failed => {
                xml += &format!("<failure message=\"{points}\" type=\"failed\">{said}</failure>");
            }
        }
        xml += "</testcase>\n";
    }
    xml + "  </testsuite>\n</testsuites>\n"
}

fn escaped(text: &str) -> String {
    let allowed = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut safe = String::new();
    for c in text.chars().filter(allowed) {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            c => safe.push(c),
        }
    }
    safe
}
