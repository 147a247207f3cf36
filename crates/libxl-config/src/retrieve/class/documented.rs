//! The page about classes against their tables.

use std::fs;
use std::path::Path;

use super::usbdev::Usbdevs;
use super::{ALL, Class};

/// The sections of the page by their titles.
fn section<'p>(page: &'p str, title: &str) -> &'p str {
    let start =
        page.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    let section = &page[start + 1..];
    section.find("\n## ").map_or(section, |end| &section[..end])
}

#[test]
fn every_key_that_is_read_stands_in_the_page_about_classes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/retrieve-classes.md");
    let page = fs::read_to_string(path).unwrap();
    for info in ALL.iter().copied().chain([Usbdevs::INFO]) {
        let section = section(&page, info.class.name());
        for kind in info.kinds.iter().chain(info.backend_kinds) {
            assert!(
                section.contains(&format!("`{kind}`")) || info.class.name() == "usbdev",
                "{kind}"
            );
        }
        for key in info.keys.iter().chain(info.frontend_keys) {
            let is_there = match *key {
                colo if colo.starts_with("colo_") => section.contains("`colo_*`"),
                numbered if numbered.ends_with('-') => section.contains(&format!("`{numbered}N`")),
                key => {
                    section.contains(&format!("`{key}`")) || section.contains(&format!("/{key}`"))
                }
            };
            assert!(is_there, "{}: {key}", info.class);
        }
        let says = if info.compared { " Compared" } else { " Not compared" };
        let says_so = section.contains(says) || section.contains(&says.replace(' ', "\n"));
        assert!(says_so, "{}: {says}", info.class);
    }
}
