//! A block of a session: commands, and what they print.

/// A command, and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As bash reads it, of several lines if it is.
    pub command: String,
    /// Whole lines.
    pub printed: String,
    /// How many lines of the block are before it.
    pub line: usize,
}

const PROMPT: &str = "$ ";
const MORE: &str = "> ";

/// The steps of a block, or its first line if that is no command.
pub(crate) fn read(block: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in block.split_inclusive('\n').enumerate() {
        let text = line.trim_end_matches('\n');
        if let Some(command) = text.strip_prefix(PROMPT) {
            let command = command.to_owned();
            steps.push(Step { command, printed: String::new(), line: number });
            continue;
        }
        let Some(step) = steps.last_mut() else { return Err(text.to_owned()) };
        match text.strip_prefix(MORE).or_else(|| (text == MORE.trim_end()).then_some("")) {
            Some(more) if step.printed.is_empty() => {
                step.command.push('\n');
                step.command.push_str(more);
            }
            _ => step.printed.push_str(line),
        }
    }
    Ok(steps)
}

/// The block of these steps.
pub(crate) fn write(steps: &[Step]) -> String {
    let mut block = String::new();
    for step in steps {
        for (number, line) in step.command.split('\n').enumerate() {
            block.push_str(if number == 0 { PROMPT } else { MORE });
            block.push_str(line);
            block.truncate(block.trim_end_matches(' ').len());
            block.push('\n');
        }
        block.push_str(&step.printed);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "\
$ cat > web.cfg <<END
> name = \"web\"
>
> END
$ domkeep list
Name  ID

> not a command
$ true
";

    #[test]
    fn a_block_is_read_as_steps_and_written_as_it_was() {
        let steps = read(BLOCK).unwrap();
        assert_eq!(steps[0].command, "cat > web.cfg <<END\nname = \"web\"\n\nEND");
        assert_eq!(steps[1].printed, "Name  ID\n\n> not a command\n");
        assert_eq!((steps.len(), steps[2].line), (3, 8));
        assert_eq!(write(&steps), BLOCK);
    }

    #[test]
    fn a_block_that_begins_with_output_is_none() {
        assert_eq!(read("web\n$ domkeep list\n"), Err("web".to_owned()));
    }
}
