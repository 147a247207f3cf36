//! A guest's console, which xenconsoled writes to a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify;

use super::Failure;
use super::program::wait_for_change;

/// Where xenconsoled writes.
pub(super) const DIRECTORY: &str = "/lab/console";
const PANIC: &str = "Kernel panic";
/// How many lines a failure quotes.
const QUOTED_LINES: usize = 8;

/// The console of one guest, from the moment on at which it was looked at first.
#[derive(Clone, Debug)]
pub struct Console {
    file: PathBuf,
    /// What an earlier guest of the same name left is not this one's.
    start: usize,
}

impl Console {
    /// Of the guest of that name, without what is there already.
    pub(super) fn of_new(name: &str) -> Console {
        let file = Path::new(DIRECTORY).join(format!("guest-{name}.log"));
        let start = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        Console { file, start: usize::try_from(start).unwrap_or(0) }
    }

    /// Of the guest that was created under that name, with all that is there.
    pub(super) fn of(name: &str) -> Console {
        Console { file: Path::new(DIRECTORY).join(format!("guest-{name}.log")), start: 0 }
    }

    /// Of the newest guest whose name began so.
    pub(super) fn of_temporary(beginning: &str) -> Result<Console, Failure> {
        let beginning = format!("guest-{beginning}");
        let mut newest = None;
        for entry in fs::read_dir(DIRECTORY)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&beginning) {
                newest = newest.max(Some((entry.metadata()?.modified()?, entry.path())));
            }
        }
        let none = || Failure::because(format!("no console is called {beginning}..."));
        newest.map(|(_, file)| Console { file, start: 0 }).ok_or_else(none)
    }

    /// All that the guest has printed.
    pub fn text(&self) -> Result<String, Failure> {
        match fs::read(&self.file) {
            Ok(octets) => {
                let new = octets.get(self.start..).unwrap_or_default();
                Ok(String::from_utf8_lossy(new).into_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The guest's last tick; 0 before the first.
    pub fn last_tick(&self) -> Result<u64, Failure> {
        Ok(last_tick(&self.text()?))
    }

    /// Waits until the text satisfies `until`, and gives that text. A panic of the guest's kernel is a failure.
    pub(super) fn wait(
        &self,
        limit: Duration,
        what: &str,
        until: impl Fn(&str) -> bool,
    ) -> Result<String, Failure> {
        let deadline = Instant::now() + limit;
        let changes =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let of = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
        inotify::add_watch(&changes, DIRECTORY, of)?;
        loop {
            let text = self.text()?;
            if let Some(panic) = panic_in(&text) {
                return Err(Failure::because(format!(
                    "waiting for {what}: the guest said {panic}"
                )));
            }
            if until(&text) {
                return Ok(text);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let end = end(&text);
                return Err(Failure::because(format!(
                    "{what} did not come within {limit:?}: {end}"
                )));
            }
            wait_for_change(&changes, left)?;
        }
    }
}

/// Consoles on which a kernel panicked, with what it said.
pub(super) fn panics(besides: &[Console]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(DIRECTORY)? {
        let file = entry?.path();
        if besides.iter().any(|console| console.file == file) {
            continue;
        }
        let text = fs::read(&file)?;
        if let Some(panic) = panic_in(&String::from_utf8_lossy(&text)) {
            found.push(format!("{}: {panic}", file.display()));
        }
    }
    Ok(found)
}

/// Only whole lines count: `tick 1` may be the beginning of `tick 12`.
pub(super) fn last_tick(text: &str) -> u64 {
    let ticks = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    ticks
        .filter_map(|line| line.trim().strip_prefix("tick ")?.parse().ok())
        .next_back()
        .unwrap_or(0)
}

fn panic_in(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains(PANIC))
}

fn end(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
    if end.is_empty() { "the console is empty".into() } else { format!("it ends with {end:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_counts_when_its_line_is_whole() {
        assert_eq!(last_tick(""), 0);
        assert_eq!(last_tick("tick 8\r\ntick 9\r\nlab-guest: ping: 1 ok \r\ntick 1"), 9);
        assert_eq!(last_tick("tick 9\r\ntick 10\r\n"), 10);
    }

    #[test]
    fn a_panic_is_found_and_quoted() {
        let text = "tick 3\n[   12.3] Kernel panic - not syncing: sysrq triggered crash\n";
        assert_eq!(
            panic_in(text),
            Some("[   12.3] Kernel panic - not syncing: sysrq triggered crash")
        );
        assert_eq!(panic_in("tick 3\n"), None);
    }
}
