//! Kernel modules in the order in which they can be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::LabError;

/// What depmod found: each module's file, and the files that it needs before it.
pub(super) struct Modules {
    files: BTreeMap<String, (String, Vec<String>)>,
}

impl Modules {
    /// Reads `modules.dep` of a kernel's module directory.
    pub(super) fn read(directory: &Path) -> Result<Modules, LabError> {
        let file = directory.join("modules.dep");
        let text = std::fs::read_to_string(&file).map_err(LabError::file(&file))?;
        Ok(Modules::parse(&text))
    }

    fn parse(text: &str) -> Modules {
        let mut files = BTreeMap::new();
        for (file, needed) in text.lines().filter_map(|line| line.split_once(':')) {
            let needed = needed.split_whitespace().map(str::to_owned).collect();
            files.insert(name(file), (file.to_owned(), needed));
        }
        Modules { files }
    }

    /// The files of `wanted` and of all that they need, each after what it needs, relative to the module directory.
    /// Fails with the name of a module that the kernel does not have.
    pub(super) fn in_order(&self, wanted: &[&str]) -> Result<Vec<String>, LabError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for module in wanted {
            let (file, needed) = self
                .files
                .get(&name(module))
                .ok_or_else(|| LabError::NoModule { module: (*module).to_owned() })?;
            // modules.dep names the whole closure, that which is needed last first.
            for file in needed.iter().rev().chain([file]) {
                if seen.insert(file.clone()) {
                    order.push(file.clone());
                }
            }
        }
        Ok(order)
    }
}

/// As the kernel sees it: a dash is an underscore.
fn name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split('.').next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc16.ko:\n\
        kernel/drivers/block/xen-blkfront.ko:\n";

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let order = Modules::parse(DEP).in_order(&["jbd2", "ext4", "xen-blkfront"]).unwrap();
        assert_eq!(
            order,
            [
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/lib/crc16.ko",
                "kernel/fs/ext4/ext4.ko",
                "kernel/drivers/block/xen-blkfront.ko"
            ]
        );
    }

    #[test]
    fn a_module_that_the_kernel_lacks_is_named() {
        let error = Modules::parse(DEP).in_order(&["9p"]).unwrap_err();
        assert_eq!(error.to_string(), "Debian's kernel has no module 9p");
    }
}
