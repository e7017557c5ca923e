//! A question to check yourself with, whose wrong answers are explained as well.
//!
//! ````text
//! ```question
//! What does `echo $$` print in step 2?
//!
//! - [ ] 1 :: Number 1 is the init.
//! - [x] 2 :: The init has started the shell.
//! ```
//! ````

use anyhow::{Context, Result, bail, ensure};

use crate::block;

/// An answer that can be chosen.
struct Answer {
    right: bool,
    text: String,
    why: String,
}

/// A question as HTML that works without JavaScript: each answer opens what is to be said of it.
///
/// # Errors
/// If there is no question, if an answer lacks its explanation, or none is right or none wrong.
pub fn question(text: &str, id: &str) -> Result<String> {
    let (question, answers) = parse(text)?;
    let mut html = format!(
        "<div class=\"question\" role=\"group\" aria-labelledby=\"{id}\">\n\
         <div class=\"question-text\" id=\"{id}\">{}</div>\n",
        block::html(&question)
    );
    for answer in answers {
        // Not "right": mdBook has a class of that name for what floats.
        let (class, verdict) = if answer.right { ("correct", "Right.") } else { ("wrong", "No.") };
        html += &format!(
            "<details class=\"answer {class}\"><summary><span>{}</span></summary>\n\
             <div><strong>{verdict}</strong> {}</div></details>\n",
            block::html(&answer.text),
            block::html(&answer.why)
        );
    }
    Ok(block::without_empty_lines(&(html + "</div>")))
}

fn parse(text: &str) -> Result<(String, Vec<Answer>)> {
    let first = text.lines().position(is_answer).context("it has no answer")?;
    let lines: Vec<&str> = text.lines().collect();
    let question = lines[..first].join("\n").trim().to_owned();
    ensure!(!question.is_empty(), "the question itself is missing");
    let mut answers: Vec<String> = vec![];
    for line in &lines[first..] {
        match answers.last_mut() {
            _ if is_answer(line) => answers.push(line.trim().to_owned()),
            Some(last) if line.starts_with("  ") => *last += &format!(" {}", line.trim()),
            _ if line.trim().is_empty() => {}
            _ => bail!("`{line}` is no answer: `- [ ] wrong :: why` or `- [x] right :: why`"),
        }
    }
    let answers = answers.iter().map(|line| answer(line)).collect::<Result<Vec<_>>>()?;
    ensure!(answers.iter().any(|answer| answer.right), "no answer is right: mark it with [x]");
    ensure!(answers.iter().any(|answer| !answer.right), "no answer is wrong");
    Ok((question, answers))
}

fn is_answer(line: &str) -> bool {
    ["- [ ] ", "- [x] "].iter().any(|mark| line.trim_start().starts_with(mark))
}

fn answer(line: &str) -> Result<Answer> {
    let (mark, rest) = line.split_at("- [ ] ".len());
    let parts = rest.split_once(" :: ").map(|(text, why)| (text.trim(), why.trim()));
    match parts {
        Some((text, why)) if !text.is_empty() && !why.is_empty() => {
            Ok(Answer { right: mark.contains('x'), text: text.into(), why: why.into() })
        }
        _ => bail!("the answer `{rest}` doesn't say why: `answer :: why`"),
    }
}

#[cfg(test)]
mod tests {
    use super::question;

    const GOOD: &str = "What is `1 < 2`?\n\n- [ ] false :: Count\n  again.\n- [x] *true* :: Yes.\n";

    #[test]
    fn every_answer_is_explained() {
        let html = question(GOOD, "q1").unwrap();
        assert!(html.contains("<code>1 &lt; 2</code>"), "{html}");
        assert!(html.contains("answer wrong\"><summary><span>false</span></summary>"), "{html}");
        assert!(html.contains("<strong>No.</strong> Count again."), "{html}");
        assert!(html.contains("<summary><span><em>true</em></span></summary>"), "{html}");
        assert!(!html.contains("\n\n"), "{html}");
    }

    #[test]
    fn a_bad_question_is_refused() {
        let error = |text: &str| question(text, "q1").unwrap_err().to_string();
        assert!(error("Why?").contains("no answer"));
        assert!(error("- [x] a :: b").contains("question itself"));
        assert!(error("Why?\n- [ ] a :: b\n- [ ] c :: d").contains("no answer is right"));
        assert!(error("Why?\n- [x] a :: b").contains("no answer is wrong"));
        assert!(error("Why?\n- [x] a\n- [ ] c :: d").contains("doesn't say why"));
        assert!(error("Why?\n- [x] a :: b\n- c :: d").contains("is no answer"));
    }
}
