//! Reads a directive, such as `{{#snapshot step03-explain from "pivot_root"}}`.

use anyhow::{Context, Result, bail, ensure};

/// What stands between `{{#` and `}}`.
#[derive(Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its first word, which says what is shown.
    pub kind: String,
    words: Vec<Word>,
}

/// A word, or a text in quotes, which is never taken for an option.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

impl Directive {
    /// Reads the text between the braces.
    ///
    /// # Errors
    /// If a quote isn't closed, or there is no word at all.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = words(text)?.into_iter();
        let kind = words.next().context("a directive begins with its name")?.text;
        Ok(Directive { kind, words: words.collect() })
    }

    /// Takes the first word that is left.
    ///
    /// # Errors
    /// If there is none: `what` tells what is missing.
    pub fn take(&mut self, what: &str) -> Result<String> {
        ensure!(!self.words.is_empty(), "{what} is missing");
        Ok(self.words.remove(0).text)
    }

    /// Takes all words that are left, as one text.
    ///
    /// # Errors
    /// If there is none: `what` tells what is missing.
    pub fn take_all(&mut self, what: &str) -> Result<String> {
        ensure!(!self.words.is_empty(), "{what} is missing");
        let words = self.words.drain(..).map(|word| word.text);
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    /// Takes the option `name` away, and tells whether it was there.
    pub fn option(&mut self, name: &str) -> bool {
        let at = self.words.iter().position(|word| !word.quoted && word.text == name);
        at.map(|at| self.words.remove(at)).is_some()
    }

    /// Takes the option `name` away, and the text in quotes after it.
    ///
    /// # Errors
    /// If no text follows.
    pub fn option_with_text(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.words.iter().position(|word| !word.quoted && word.text == name) else {
            return Ok(None);
        };
        self.words.remove(at);
        let follows = self.words.get(at).is_some_and(|word| word.quoted);
        ensure!(follows, "after `{name}` a text in double quotes is missing");
        Ok(Some(self.words.remove(at).text))
    }

    /// Demands that nothing is left.
    ///
    /// # Errors
    /// If something is.
    pub fn end(&self) -> Result<()> {
        match self.words.first() {
            Some(word) => bail!("`{}` isn't understood here", word.text),
            None => Ok(()),
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>> {
    let mut words = vec![];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (text, after, quoted) = match rest.strip_prefix('"') {
            Some(inner) => {
                let (text, after) = inner.split_once('"').context("a double quote isn't closed")?;
                (text, after, true)
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (&rest[..end], &rest[end..], false)
            }
        };
        words.push(Word { text: text.to_owned(), quoted });
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::Directive;

    #[test]
    fn words_options_and_texts() {
        let mut directive = Directive::parse("snapshot a-b from \"to x\" to \"end\" docs").unwrap();
        assert_eq!(directive.kind, "snapshot");
        assert_eq!(directive.take("a name").unwrap(), "a-b");
        assert_eq!(directive.option_with_text("to").unwrap().unwrap(), "end");
        assert_eq!(directive.option_with_text("from").unwrap().unwrap(), "to x");
        assert!(directive.option("docs") && !directive.option("docs"));
        directive.end().unwrap();
        assert!(directive.take("a name").unwrap_err().to_string().contains("a name is missing"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(Directive::parse("item \"open").is_err());
        assert!(Directive::parse("").is_err());
        let directive = Directive::parse("figure a b").unwrap();
        assert!(directive.end().unwrap_err().to_string().contains("`a`"));
        let mut directive = Directive::parse("snapshot a from b").unwrap();
        assert!(directive.option_with_text("from").is_err());
    }
}
