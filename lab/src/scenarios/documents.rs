//! The sessions of README and docs/ that need a real host: played, and compared with what the pages say.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use documents::{Kind, Page, Stage, pages};

use super::Scenario;
use crate::dom0::{Failure, Host};

pub(super) const DOCUMENTS: Scenario = Scenario {
    name: "documents",
    about: "what the pages of the documentation show of a Xen host is what is printed there",
    limit: Duration::from_mins(10),
    run,
    ..Scenario::PLAIN
};

/// For a command of a page: a guest starts within it.
const COMMAND_LIMIT: Duration = Duration::from_mins(3);
/// The pages and what they name, as the lab put them there.
const PROJECT: &str = "/lab/share/project";
/// Pages as they would have to be.
const CORRECTED: &str = "/lab/share/logs/pages";

fn run(host: &mut Host) -> Result<(), Failure> {
    let project = project(&host.work())?;
    let mut differences = Vec::new();
    let mut commands = 0;
    for page in pages(Path::new(PROJECT))? {
        let played = page.play(&Kind::Lab, &stage(host, &page, &project)?);
        let played = played.map_err(Failure::because)?;
        if played.commands == 0 {
            continue;
        }
        host.step(&format!("{}: {} commands", page.name, played.commands));
        commands += played.commands;
        if played.page != page.text {
            let file = Path::new(CORRECTED).join(page.name.replace('/', "-"));
            fs::create_dir_all(CORRECTED)?;
            fs::write(file, &played.page)?;
        }
        for difference in &played.differences {
            println!("{difference}");
        }
        differences.extend(played.differences);
    }
    host.check("there are commands", commands > 0)?;
    host.figure("commands", f64::from(u32::try_from(commands)?));
    host.check("all pages say what is printed", differences.is_empty())
}

/// The project as pages know it, with the programs where cargo puts them.
fn project(work: &Path) -> Result<PathBuf, Failure> {
    let project = work.join("project");
    let release = project.join("target/release");
    fs::create_dir_all(&release)?;
    for program in ["domkeep", "xenstored"] {
        symlink(Path::new("/lab/bin").join(program), release.join(program))?;
    }
    Ok(project)
}

fn stage(host: &Host, page: &Page, project: &Path) -> Result<Stage, Failure> {
    let directory = host.work().join(page.name.replace('/', "-"));
    fs::create_dir_all(&directory)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let variables: Vec<(OsString, OsString)> = vec![("PATH".into(), path)];
    Ok(Stage { directory, project: project.to_owned(), variables, limit: COMMAND_LIMIT })
}
