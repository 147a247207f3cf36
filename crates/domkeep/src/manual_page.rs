//! A manual page: what clap knows of a command, and the sections of which it knows nothing.
//!
//! Both programs of this crate have this file.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The page of one command.
pub(crate) struct Page {
    /// Built, so that it has its full name and the global options.
    pub(crate) command: Command,
    /// Of the manual: 1 or 8.
    pub(crate) section: &'static str,
    /// What comes behind options and subcommands.
    pub(crate) more: Vec<Section>,
}

/// A section by its heading.
pub(crate) struct Section {
    pub(crate) heading: &'static str,
    pub(crate) entries: Vec<Entry>,
}

/// A part of a section.
pub(crate) enum Entry {
    /// A paragraph.
    Text(String),
    /// What something is or means: a file, a variable, a status.
    Term(&'static str, &'static str),
    /// What a command line does.
    Example(&'static str, &'static str),
}

impl Section {
    /// Terms with their meaning, one below the other.
    pub(crate) fn terms(
        heading: &'static str,
        terms: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Self {
        let entries = terms.into_iter().map(|(term, words)| Entry::Term(term, words)).collect();
        Self { heading, entries }
    }

    /// Command lines with what they do.
    pub(crate) fn examples(
        examples: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Self {
        let entries = examples.into_iter().map(|(line, words)| Entry::Example(line, words));
        Self { heading: "EXAMPLES", entries: entries.collect() }
    }

    /// Other pages.
    pub(crate) fn see_also(pages: &[String]) -> Self {
        Self { heading: "SEE ALSO", entries: vec![Entry::Text(pages.join(", "))] }
    }
}

impl Page {
    /// The page in roff, for `man`.
    pub(crate) fn text(&self) -> io::Result<Vec<u8>> {
        let man = Man::new(self.command.clone())
            .section(self.section)
            .source(concat!("Domkeep ", env!("CARGO_PKG_VERSION")))
            .manual("Domkeep");
        let mut text = Vec::new();
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        if self.command.get_subcommands().any(|command| !command.is_hide_set()) {
            man.render_subcommands_section(&mut text)?;
        }
        self.more().to_writer(&mut text)?;
        Ok(text)
    }

    fn more(&self) -> Roff {
        let mut roff = Roff::new();
        for section in self.more.iter().filter(|section| !section.entries.is_empty()) {
            roff.control("SH", [section.heading]);
            for entry in &section.entries {
                match entry {
                    Entry::Text(words) => {
                        roff.text([roman(words)]);
                    }
                    Entry::Term(term, words) => {
                        roff.control("TP", []).text([bold(*term)]).text([roman(*words)]);
                    }
                    Entry::Example(line, words) => {
                        roff.control("PP", []).text([roman(*words)]);
                        roff.control("PP", []).control("RS", ["4"]).control("nf", []);
                        roff.text([bold(*line)]);
                        roff.control("fi", []).control("RE", []);
                    }
                }
            }
        }
        roff
    }
}
