//! The sessions of a page, played.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use snapbox::filter::NormalizeToExpected;
use snapbox::report::{Palette, write_diff};
use snapbox::{Data, Redactions};

use crate::page::{Kind, Page};
use crate::session::{self, Step};
use crate::shell::Shell;

/// Where sessions are played.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Empty.
    pub directory: PathBuf,
    /// What `domkeep` in that directory is: the project.
    pub project: PathBuf,
    /// Variables of the shell.
    pub variables: Vec<(OsString, OsString)>,
    /// For each command.
    pub limit: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// How many blocks, and how many commands.
    pub blocks: usize,
    /// See there.
    pub commands: usize,
    /// What differs, ready to be read.
    pub differences: Vec<String>,
    /// The page as it would have to be; wildcards stay where they fit.
    pub page: String,
}

/// The name of the link to the project.
const LINK: &str = "domkeep";
const DIRECTORY: &str = "[CWD]";

impl Page {
    /// The sessions of a kind, and their steps.
    ///
    /// # Errors
    ///
    /// Where a block does not begin with a command.
    pub fn sessions(&self, kind: &Kind) -> Result<Vec<(usize, Vec<Step>)>, String> {
        let blocks = self.blocks.iter().enumerate().filter(|(_, block)| block.kind == *kind);
        let read = |(number, block): (usize, &crate::Block)| {
            let steps = session::read(&block.text);
            let steps = steps
                .map_err(|line| format!("{}:{}: no command: {line}", self.name, block.line))?;
            Ok((number, steps))
        };
        blocks.map(read).collect()
    }

    /// Plays the sessions of a kind, and compares.
    ///
    /// # Errors
    ///
    /// If they cannot be played at all. What is printed otherwise is no error but a difference.
    pub fn play(&self, kind: &Kind, stage: &Stage) -> Result<Played, String> {
        let sessions = self.sessions(kind)?;
        let mut played = Played { page: self.text.clone(), ..Played::default() };
        if sessions.is_empty() {
            return Ok(played);
        }
        let failed = |error: std::io::Error| format!("{}: {error}", self.name);
        let directory = stage.directory.canonicalize().map_err(failed)?;
        symlink(stage.project.canonicalize().map_err(failed)?, directory.join(LINK))
            .map_err(failed)?;
        let mut redactions = Redactions::new();
        redactions.insert(DIRECTORY, directory.clone()).map_err(|error| error.to_string())?;
        let mut shell = Shell::start(&directory, &stage.variables).map_err(failed)?;
        let mut written = Vec::new();
        for (number, steps) in sessions {
            played.blocks += 1;
            let mut found = Vec::new();
            for step in steps {
                played.commands += 1;
                let place = format!("{}:{}", self.name, self.blocks[number].line + 1 + step.line);
                let lines = match step.command.trim_end().ends_with('&') {
                    true => step.printed.lines().count(),
                    false => 0,
                };
                let printed = shell.run(&step.command, lines, stage.limit);
                let printed = match printed {
                    Ok(printed) => printed,
                    Err(error) => {
                        played.differences.push(format!("{place}: $ {}\n{error}", step.command));
                        return Ok(played);
                    }
                };
                let (printed, difference) = compare(&step, printed, &redactions);
                let of = |difference| format!("{place}: $ {}\n{difference}", step.command);
                played.differences.extend(difference.map(of));
                found.push(Step { printed, ..step });
            }
            written.push((number, session::write(&found)));
        }
        played.page = self.with(&written);
        Ok(played)
    }

    /// The page with other texts in blocks, which are named by their numbers, in order.
    fn with(&self, blocks: &[(usize, String)]) -> String {
        let mut page = String::new();
        let mut at = 0;
        for (number, text) in blocks {
            let span = &self.blocks[*number].span;
            page.push_str(&self.text[at..span.start]);
            page.push_str(text);
            at = span.end;
        }
        page.push_str(&self.text[at..]);
        page
    }
}

/// What the page would have to say, and how it differs from what it says.
fn compare(step: &Step, printed: String, redactions: &Redactions) -> (String, Option<String>) {
    let mut printed = printed;
    if !printed.is_empty() && !printed.ends_with('\n') {
        printed.push('\n');
    }
    let expected = Data::text(step.printed.clone());
    let normal = NormalizeToExpected::new().redact_with(redactions);
    let actual = normal.normalize(Data::text(printed), &expected);
    let text = actual.render().unwrap_or_default();
    if text == step.printed {
        return (text, None);
    }
    let mut difference = String::new();
    let names: [&dyn std::fmt::Display; 2] = [&"the page", &"printed"];
    let shown = write_diff(
        &mut difference,
        &expected,
        &actual,
        Some(names[0]),
        Some(names[1]),
        Palette::plain(),
    );
    if shown.is_err() {
        let _ = write!(difference, "printed: {text}"); // a String takes all
    }
    (text, Some(difference))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(text: &str) -> Played {
        let page = Page::new("a.md".to_owned(), text.to_owned());
        let directory = tempfile::tempdir().unwrap();
        let stage = Stage {
            directory: directory.path().to_owned(),
            project: crate::project(),
            variables: vec![("WORD".into(), "a word".into())],
            limit: Duration::from_mins(1),
        };
        page.play(&Kind::Console, &stage).unwrap()
    }

    const RIGHT: &str = "\
```console
$ echo $WORD | tr a-z A-Z; echo >&2 $RANDOM and more
A WORD
[..] and more
$ A=1
```

Then:

```console
$ echo $A; pwd; seq 9; echo end
1
[CWD]
1
...
9
end
$ ls domkeep/README.md
domkeep/README.md
$ (sleep 0.2; echo serving) &
serving
```
";

    #[test]
    fn a_page_that_says_what_is_printed_has_no_differences_and_stays_as_it_is() {
        let played = play(RIGHT);
        assert_eq!(played.differences, Vec::<String>::new());
        assert_eq!((played.blocks, played.commands), (2, 5));
        assert_eq!(played.page, RIGHT);
    }

    #[test]
    fn another_word_a_missing_line_and_one_too_many_are_differences_and_put_right() {
        for (right, wrong, at) in [
            ("A WORD", "A ward", 2),
            ("[..] and more\n", "", 2),
            ("end\n", "end\nand more\n", 11),
            ("serving\n", "swerving\n", 20),
        ] {
            let text = RIGHT.replacen(right, wrong, 1);
            let played = play(&text);
            let [difference] = &played.differences[..] else { panic!("{:?}", played.differences) };
            assert!(difference.starts_with(&format!("a.md:{at}: $ ")), "{difference}");
            // In a step that differs, what a wildcard stands for may be written out.
            let open = right.starts_with("[..]") || right == "end\n";
            assert!(open || played.page == RIGHT, "{}", played.page);
        }
    }

    #[test]
    fn a_shell_that_ends_is_a_difference() {
        let played = play("```console\n$ exit 3\n$ echo never\n```\n");
        assert!(played.differences[0].contains("the shell ended"), "{:?}", played.differences);
    }
}
