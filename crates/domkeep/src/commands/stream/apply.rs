//! `stream apply`: the nodes of a stream, put back into a domain.

use snapshot::xenstore_state::{ApplyRequest, ExtractRequest, apply, extract};
use xenstore_migration::ReadOptions;
use xenstore_migration::domain_state::{
    DomainState, NodePattern, RestorePolicy, RestoreRule, Translation, Treatment, vm_tree,
};
use xsclient::{Client, DomId, Path};

use super::report::Report;
use super::source::Source;
use crate::arguments::{Apply, Renumbering};
use crate::domains;
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: &Apply,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let path = &asked.file;
    let mut source = Source::open(path, ReadOptions::default())?;
    let contents = DomainState::from_stream(&mut source.reader)
        .map_err(|source| CommandError::DomainStream { path: path.clone(), source })?;
    let mut client = places.client()?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    if domid == DomId::DOM0 {
        // It owns the backends of all guests, which an exact restore would remove.
        return Err(CommandError::ApplyToHost);
    }
    let mut saved = contents.state;
    let from = saved.domid;
    let vm = Vm::of(&mut saved, domid, &mut client, places)?;
    let mut translation = Translation::new(from, domid);
    if let Vm::Moves { from, to } = &vm {
        translation = translation.tree(from.clone(), to.clone());
    }
    for Renumbering { from: other, to } in &asked.domids {
        let times = asked.domids.iter().filter(|it| it.from == *other).count();
        if *other == from || times > 1 {
            return Err(CommandError::RenumberedTwice { domid: *other });
        }
        translation = translation.domid(*other, *to);
    }
    let wanted = translation.apply(&saved).map_err(|source| CommandError::Translate {
        path: path.clone(),
        domid,
        source,
    })?;
    let mut request = ApplyRequest::new(policy(asked.exact, &asked.allow), places.deadline());
    request.dry_run = asked.dry_run;
    request.known = asked.domids.iter().map(|known| known.to).collect();
    let applied = apply(&mut client, &wanted, &request)?;
    let report = Report {
        file: path.display().to_string(),
        from,
        domid,
        dry_run: asked.dry_run,
        applied,
        vm_left_out: match vm {
            Vm::LeftOut(root) => Some(root),
            Vm::None | Vm::Moves { .. } => None,
        },
        unknown: contents.unknown,
        stale: contents.stale,
    };
    if output.is_json() {
        output.document(&report.document())?;
    } else {
        output.text(report.in_words())?;
    }
    Ok(Exit::bad_news_if(report.is_bad()))
}

/// What may be changed. The patterns that were given count before all else.
fn policy(exact: bool, allow: &[NodePattern]) -> RestorePolicy {
    let (policy, treatment) = if exact {
        (RestorePolicy::exact(), Treatment::Replace)
    } else {
        (RestorePolicy::cooperative(), Treatment::Merge)
    };
    allow.iter().fold(policy, |policy, pattern| {
        policy.before(RestoreRule::of_anybody(pattern.clone(), treatment))
    })
}

/// What becomes of the domain's tree below `/vm`, which is named after its uuid.
enum Vm {
    /// The stream has none.
    None,
    /// It goes to that of the new domain.
    Moves { from: Path, to: Path },
    /// The new domain has none. The old name may be the tree of another domain by now, which gets nothing of it.
    LeftOut(Path),
}

impl Vm {
    /// Looks for the tree in the state and in Xenstore; takes it out of the state if it has nowhere to go.
    fn of(
        saved: &mut DomainState,
        domid: DomId,
        client: &mut Client,
        places: &Places,
    ) -> Result<Self, CommandError> {
        let Some(from) = own_vm(saved) else { return Ok(Self::None) };
        // Reading all of the domain finds its tree with all the checks that extracting it has.
        let mut request = ExtractRequest::new(domid, places.deadline());
        request.attempts = 1;
        let now = extract(client, &request)?.state;
        if let Some(to) = own_vm(&now) {
            return Ok(Self::Moves { from, to });
        }
        saved.roots.remove(&from);
        saved.nodes.retain(|path, _| !path.is_at_or_below(&from));
        Ok(Self::LeftOut(from))
    }
}

/// The root of a state that its domain's node `vm` names.
fn own_vm(state: &DomainState) -> Option<Path> {
    let pointer = Path::of_domain(state.domid).join("vm").ok()?;
    let root = vm_tree(state.domid, state.nodes.get(&pointer)?).ok()?;
    state.roots.contains(&root).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_were_given_count_before_the_rest() {
        let image: NodePattern = "image/**".parse().unwrap();
        for (exact, treatment) in [(false, Treatment::Merge), (true, Treatment::Replace)] {
            let policy = policy(exact, std::slice::from_ref(&image));
            assert_eq!(policy.rules()[0], RestoreRule::of_anybody(image.clone(), treatment));
            assert_eq!(policy.wants_attachments(), exact);
        }
    }
}
