//! The programs and the library, built so that nothing of this machine's paths is in them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// What a build sees of the environment: where programs and their files are, and how to reach crates.io.
const KEPT: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// The same, in upper or lower case.
const KEPT_PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
/// The same, whatever follows.
const KEPT_PREFIXES: [&str; 2] = ["CARGO_NET_", "CARGO_HTTP_"];

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
        confine(&mut build, std::env::vars_os());
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

/// Takes from a command all variables but those that decide nothing of what it builds. Cargo, rustc and the crates that compile C
/// read too many others to name them: `CFLAGS` alone is also `CFLAGS_x86_64_unknown_linux_gnu` and `TARGET_CFLAGS`.
fn confine(build: &mut Command, variables: impl IntoIterator<Item = (OsString, OsString)>) {
    let kept = variables.into_iter().filter(|(name, _)| name.to_str().is_some_and(is_kept));
    build.env_clear().envs(kept).env("LC_ALL", "C.UTF-8");
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name)
        || KEPT_PROXIES.iter().any(|kept| name == *kept || name == kept.to_uppercase())
        || KEPT_PREFIXES.iter().any(|kept| name.starts_with(kept))
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
    fn nothing_of_the_environment_gets_into_the_package() {
        const DECIDING: [&str; 14] = [
            "RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_PROFILE_DIST_DEBUG",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_RUSTC",
            "CFLAGS",
            "CFLAGS_x86_64_unknown_linux_gnu",
            "CC_x86_64-unknown-linux-gnu",
            "HOST_CC",
            "TARGET_CFLAGS",
            "CRATE_CC_NO_DEFAULTS",
            "LC_ALL",
        ];
        const NEEDED: [&str; 6] = [
            "HOME",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "RUSTUP_TOOLCHAIN",
            "https_proxy",
            "NO_PROXY",
        ];
        let path = std::env::var_os("PATH").expect("programs are found by it");
        let set = |name: &&str| (OsString::from(*name), OsString::from("set"));
        let variables = DECIDING.iter().chain(&NEEDED).map(set);
        let mut env = Command::new("env");
        confine(&mut env, variables.chain([("PATH".into(), path)]));
        let seen = answer(env).expect("env prints what it sees");
        let seen: BTreeSet<_> = seen.lines().filter_map(|line| line.strip_suffix("=set")).collect();
        assert_eq!(seen, BTreeSet::from(NEEDED));
    }
}
