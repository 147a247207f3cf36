//! Which Xenstore daemon a host has.

/// A daemon and how it keeps the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum Xenstored {
    /// Debian's, in C.
    #[default]
    Stock,
    /// Domkeep's, with the store in memory.
    Ours,
    /// Domkeep's, with `--database`: the store outlives it.
    OursKept,
}

impl Xenstored {
    /// All of them.
    pub const ALL: [Xenstored; 3] = [Xenstored::Stock, Xenstored::Ours, Xenstored::OursKept];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Xenstored::Stock => "stock",
            Xenstored::Ours => "ours",
            Xenstored::OursKept => "ours-kept",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Xenstored> {
        Xenstored::ALL.into_iter().find(|xenstored| xenstored.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_command_line_and_the_host_call_them_the_same() {
        for xenstored in Xenstored::value_variants() {
            let value = xenstored.to_possible_value().unwrap();
            assert_eq!(value.get_name(), xenstored.name());
            assert_eq!(Xenstored::named(xenstored.name()), Some(*xenstored));
        }
    }
}
