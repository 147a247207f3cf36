//! The lab notices what it has to notice.

use std::time::Duration;

use super::Scenario;
use crate::dom0::{Failure, GuestConfig, Host};

pub(super) const CRASH: Scenario = Scenario {
    name: "crash",
    about: "a guest whose kernel panics fails the wait for its next tick, and is seen in state c",
    limit: Duration::from_mins(5),
    run,
    ..Scenario::PLAIN
};

fn run(host: &mut Host) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pv("crashing"))?;
    host.check_equal("the guest answers", &guest.ask("ping")?, &String::new())?;
    let unknown = guest.ask_either("no-such-command")?;
    host.check("a command that the guest does not know is refused by it", unknown.is_err())?;
    host.may_panic(&guest);
    // It does not live to answer.
    guest.tell("crash")?;
    let waited = guest.wait_for_tick(1_000_000);
    let Err(Failure::Failed(reason)) = waited else {
        return Err(Failure::because(format!("a panic went unnoticed: {waited:?}")));
    };
    host.check(&format!("the failure names the panic: {reason}"), reason.contains("Kernel panic"))?;
    let listed = host.xl(&["list", guest.name()])?.stdout;
    let state = listed.lines().last().and_then(|line| line.split_whitespace().nth(4));
    let crashed = state.is_some_and(|state| state.contains('c'));
    host.check(&format!("xl shows it as crashed: {state:?}"), crashed)
}
