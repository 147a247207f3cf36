//! A page, and its blocks of code.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is in the project: `README.md`, `docs/hotplug.md`.
    pub name: String,
    /// All of it.
    pub text: String,
    /// Its blocks of code, in order.
    pub blocks: Vec<Block>,
    /// What it needs that it cannot show: the words of comments `<!-- needs: WORD -->`.
    pub needs: Vec<String>,
}

/// A block of code.
#[derive(Clone, Debug)]
pub struct Block {
    /// What it is.
    pub kind: Kind,
    /// What stands in it.
    pub text: String,
    /// Where that is in the page, in octets; of an indented block, with its indentation.
    pub span: Range<usize>,
    /// The line of the page that it begins in, from 1.
    pub line: usize,
}

/// What a block of code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A session that any machine can play.
    Console,
    /// A session for a real Xen host.
    Lab,
    /// Commands of the development.
    Development,
    /// Rust that is compiled.
    Rust,
    /// Rust that stands in this file of the project.
    RustOf(String),
    /// Of another language or none, or indented: what its fence says.
    Shown(String),
}

/// What nobody should read at the beginning of a line without its having been run.
const COMMANDS: &str = "$ domkeep xenstored xl cargo systemctl journalctl install apt apt-get sudo gcc cc pkg-config \
    qemu-img readlink man git make dpkg kill export";
/// What the names of stock tools begin with.
const STOCK_TOOLS: &str = "xenstore-";

impl Page {
    /// Of its text.
    #[must_use]
    pub fn new(name: String, text: String) -> Page {
        let (blocks, needs) = read(&text);
        Page { name, text, blocks, needs }
    }
}

impl Block {
    /// The first line that looks like a command, in a block that is only shown.
    #[must_use]
    pub fn unplayed(&self) -> Option<&str> {
        if !matches!(self.kind, Kind::Shown(_)) {
            return None;
        }
        self.text.lines().map(str::trim).find(|line| {
            let words = line.trim_start_matches("# ").split_whitespace();
            let mut words = words.skip_while(|word| word.contains('='));
            words.next().is_some_and(|first| {
                let tool = first.starts_with(STOCK_TOOLS) && !first.contains(',');
                tool || COMMANDS.split_whitespace().any(|command| command == first)
            })
        })
    }
}

impl Kind {
    fn of(kind: &CodeBlockKind<'_>) -> Kind {
        let CodeBlockKind::Fenced(info) = kind else { return Kind::Shown(String::new()) };
        let words: Vec<_> = info.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["console"] => Kind::Console,
            ["console", "lab"] => Kind::Lab,
            ["sh", "dev"] => Kind::Development,
            ["rust"] | ["rust", "no_run"] => Kind::Rust,
            ["rust", file] if file.starts_with("from=") => Kind::RustOf(file[5..].to_owned()),
            _ => Kind::Shown(info.to_string()),
        }
    }
}

fn read(text: &str) -> (Vec<Block>, Vec<String>) {
    let mut blocks = Vec::new();
    let mut needs = Vec::new();
    let mut open: Option<Block> = None;
    for (event, place) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let line = text[..place.start].lines().count() + 1;
                let span = place.start..place.start;
                open = Some(Block { kind: Kind::of(&kind), text: String::new(), span, line });
            }
            Event::Text(part) => {
                if let Some(block) = &mut open {
                    if block.text.is_empty() {
                        block.span.start = place.start;
                    }
                    block.text.push_str(&part);
                    block.span.end = place.end;
                }
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            Event::Html(html) => needs.extend(need(&html)),
            _ => {}
        }
    }
    (blocks, needs)
}

fn need(html: &str) -> Option<String> {
    let word = html.trim().strip_prefix("<!-- needs: ")?.strip_suffix(" -->")?;
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A page

<!-- needs: a stock xenstored -->

```console
$ domkeep list
web
```

Then:

```console lab
$ xl list
```

    domkeep list

- in a list:

        $ xl info

```rust from=lab/src/lib.rs
fn main() {}
```

```sh
A=1 cargo run
```

```json
{ \"domkeep\": 1 }
```
";

    #[test]
    fn blocks_are_of_their_kinds_and_say_where_they_are() {
        let page = Page::new("a.md".to_owned(), TEXT.to_owned());
        let kinds: Vec<_> = page.blocks.iter().map(|block| block.kind.clone()).collect();
        let shown = |info: &str| Kind::Shown(info.to_owned());
        assert_eq!(
            kinds,
            [
                Kind::Console,
                Kind::Lab,
                shown(""),
                shown(""),
                Kind::RustOf("lab/src/lib.rs".to_owned()),
                shown("sh"),
                shown("json"),
            ]
        );
        assert_eq!(&TEXT[page.blocks[0].span.clone()], "$ domkeep list\nweb\n");
        assert_eq!(page.blocks[0].line, 5);
        assert_eq!(page.needs, ["a stock xenstored"]);
    }

    #[test]
    fn a_command_that_is_only_shown_is_found_indented_in_a_list_and_fenced() {
        let page = Page::new("a.md".to_owned(), TEXT.to_owned());
        let found: Vec<_> = page.blocks.iter().filter_map(Block::unplayed).collect();
        assert_eq!(found, ["domkeep list", "$ xl info", "A=1 cargo run"]);
    }
}
