//! Errors as logs, answers and people get them.

use std::error::Error;

/// An error and its causes, on one line. What a cause says in the words of the error above it is said once.
///
/// The errors of all crates say in their own words only what the cause does not.
///
/// ```
/// use xenstore_proto::{DomId, on_one_line};
///
/// let error = "0x7".parse::<DomId>().unwrap_err();
/// assert_eq!(on_one_line(&error), error.to_string());
/// ```
pub fn on_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut last = line.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if text != last {
            line.push_str(": ");
            line.push_str(&text);
        }
        (last, cause) = (text, error.source());
    }
    line
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|cause| cause.as_ref() as &(dyn Error + 'static))
        }
    }

    #[test]
    fn causes_follow_in_their_order_and_none_is_said_twice() {
        let layer = |words, below| Layer(words, Some(Box::new(below)));
        let error =
            layer("not saved", layer("disk full", layer("disk full", Layer("ENOSPC", None))));
        assert_eq!(on_one_line(&error), "not saved: disk full: ENOSPC");
    }
}
