//! The programs and the library, built so that nothing of this machine's paths is in them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::failed;
use super::programs::{answer, command};
use crate::command::{Failure, cargo, execute};

/// Where the paths of sources seem to be, wherever they are.
const SOURCES: &str = "/usr/src/domkeep";
const CRATES: &str = "/usr/src/cargo";

/// The profile in Cargo.toml, and the directory that cargo names after it.
const PROFILE: &str = "dist";

/// How rustc tells what a program needs that is linked with the static library.
const NATIVE_LIBRARIES: &str = "native-static-libs: ";

/// What is built where.
pub(super) struct Build {
    /// The root of the workspace.
    pub(super) source: PathBuf,
    /// A target directory of its own.
    pub(super) target: PathBuf,
}

/// What has been built.
pub(super) struct Built {
    /// Where the programs and libraries are.
    pub(super) directory: PathBuf,
    /// What a program needs that is linked with the static library, as the linker is told.
    pub(super) native_libraries: String,
}

impl Build {
    /// Builds the command, the daemon and the C library.
    pub(super) fn run(&self) -> Result<Built, Failure> {
        let mut build = cargo(&["build", "--locked", "--profile", PROFILE]);
        build.args(["--package", "domkeep", "--package", "domkeep-capi", "--target-dir"]);
        build.arg(&self.target).current_dir(&self.source);
        // Of the environment nothing decides what is built but the flags given here.
        for (name, _) in std::env::vars_os() {
            if decides(&name.to_string_lossy()) {
                build.env_remove(name);
            }
        }
        build.env("CARGO_ENCODED_RUSTFLAGS", self.flags()?).env("CARGO_INCREMENTAL", "0");
        execute(build)?;
        Ok(Built {
            directory: self.target.join(PROFILE),
            native_libraries: self.native_libraries()?,
        })
    }

    /// What rustc says of a static library with nothing but the standard library in it. That the one of this build needs no
    /// more is shown where a program is linked with it (`--install-check`).
    fn native_libraries(&self) -> Result<String, Failure> {
        let out = self.target.join("libnothing.a");
        let mut rustc = command("rustc", &["--crate-name=nothing", "--crate-type=staticlib"]);
        rustc.args(["--print=native-static-libs", "-o"]).arg(&out).arg("-");
        let output = rustc.current_dir(&self.source).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let libraries = told.lines().find_map(|line| line.split_once(NATIVE_LIBRARIES));
        let (_, libraries) = libraries
            .ok_or_else(|| format!("rustc does not say what a static library needs: {told}"))?;
        std::fs::remove_file(&out).map_err(failed("remove", &out))?;
        Ok(in_order(libraries))
    }

    /// The paths of this machine that must not be found in what is built.
    pub(super) fn private_paths(&self) -> Result<Vec<PathBuf>, Failure> {
        let paths = [self.target.clone(), self.source.clone(), cargo_home()?, self.sysroot()?];
        Ok(paths.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Flags of rustc, in cargo's own encoding. Of several paths that fit, the last one is replaced.
    fn flags(&self) -> Result<OsString, Failure> {
        let mut remapped = vec![
            (cargo_home()?, CRATES.to_owned()),
            (self.source.clone(), SOURCES.to_owned()),
            (self.target.clone(), format!("{SOURCES}/target")),
        ];
        // Where the standard library's sources are installed, rustc says so instead of where they were when it was made.
        let library = self.sysroot()?.join("lib/rustlib/src/rust");
        if library.is_dir() {
            remapped.push((library, self.rust()?));
        }
        let flags: Vec<OsString> = remapped
            .into_iter()
            .map(|(path, shown)| {
                let mut flag = OsString::from("--remap-path-prefix=");
                flag.push(path);
                flag.push("=");
                flag.push(shown);
                flag
            })
            .collect();
        Ok(flags.join(OsStr::new("\u{1f}")))
    }

    /// Where the standard library's sources were when it was made.
    fn rust(&self) -> Result<String, Failure> {
        let mut rustc = command("rustc", &["--version", "--verbose"]);
        rustc.current_dir(&self.source);
        let told = answer(rustc)?;
        let hash = told.lines().find_map(|line| line.strip_prefix("commit-hash: "));
        hash.map(|hash| format!("/rustc/{hash}")).ok_or_else(|| "rustc has no commit".to_owned())
    }

    fn sysroot(&self) -> Result<PathBuf, Failure> {
        let mut rustc = command("rustc", &["--print", "sysroot"]);
        rustc.current_dir(&self.source);
        Ok(PathBuf::from(answer(rustc)?.trim_end()))
    }
}

/// Whether a variable of the environment changes what cargo or a C compiler builds.
fn decides(name: &str) -> bool {
    const NAMES: [&str; 8] =
        ["RUSTFLAGS", "CFLAGS", "CXXFLAGS", "CC", "CXX", "AR", "RUSTC_WRAPPER", "RUSTDOCFLAGS"];
    NAMES.contains(&name)
        || name.starts_with("CARGO_PROFILE_")
        || name.starts_with("CARGO_BUILD_")
        || name.starts_with("CARGO_TARGET_")
        || name.starts_with("CARGO_ENCODED_")
        || name.starts_with("CARGO_PKG_")
}

fn cargo_home() -> Result<PathBuf, Failure> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").ok_or("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// The libraries, each once: rustc names one as often as a crate asks for it.
fn in_order(libraries: &str) -> String {
    let mut told = Vec::new();
    for library in libraries.split_whitespace() {
        if !told.contains(&library) {
            told.push(library);
        }
    }
    told.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rustc_says_twice_is_linked_once() {
        assert_eq!(in_order("-lgcc_s -lutil  -lc -lgcc_s -lc\n"), "-lgcc_s -lutil -lc");
    }

    #[test]
    fn flags_of_the_environment_do_not_get_into_the_package() {
        for name in ["RUSTFLAGS", "CARGO_PROFILE_DEV_DEBUG", "CARGO_TARGET_DIR", "CFLAGS"] {
            assert!(decides(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_TOOLCHAIN"] {
            assert!(!decides(name), "{name}");
        }
    }
}
