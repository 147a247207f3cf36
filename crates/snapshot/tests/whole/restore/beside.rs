//! Beside the original, which runs on.

use std::collections::BTreeMap;

use snapshot::control::{DomainControl, DomainState};
use snapshot::restore::{NicChange, Start};
use snapshot::{Observer, restore};
use xsclient::{DomId, Nodes};

use super::saved::{Memory, saved, soon};

#[test]
fn a_restored_domain_is_as_saved_and_goes_on_beside_the_original() {
    const TEST: &str = "a_restored_domain_is_as_saved_and_goes_on_beside_the_original";
    for memory in [Memory::Mapped, Memory::Packed, Memory::Stream] {
        let Some(saved) = saved(TEST, memory) else { return };
        let mut request = saved.request("copy");
        request.start = Start::Paused;
        let mac = Some([0, 22, 62, 9, 9, 9]);
        request.nics.insert(0, NicChange { mac, bridge: Some("xenbr1".into()) });
        let plan = saved.plan(request);
        let before = saved.files();
        assert!(!before.iter().any(|name| name.starts_with("copy")), "a plan makes nothing");

        let mut phases = Vec::new();
        let mut tell = |progress: &snapshot::Progress| phases.push(progress.phase.to_string());
        let mut observer = Observer::none().progress(&mut tell);
        let restored = saved.with(|access| restore(access, plan, &mut observer)).unwrap();
        phases.dedup();
        assert_eq!(phases, ["plan", "verify", "prepare", "build", "apply", "start"]);

        let copy = restored.domain.unwrap();
        assert_eq!(restored.state, Some(DomainState::Paused));
        let view = saved.control().find(copy.domid, soon()).unwrap().unwrap();
        assert_eq!(view.name.as_deref(), Some("copy"));
        assert_eq!((view.identity, view.state), (copy, DomainState::Paused));
        assert_ne!(copy.uuid, saved.web.uuid);
        saved.is_as_saved(&copy);
        saved.frozen_is_as_it_was();
        let nic = &restored.configuration["nics"][0];
        assert_eq!(nic["mac"], "00:16:3e:09:09:09");
        assert_eq!(nic["bridge"], "xenbr1");
        for disk in &restored.disks {
            assert_eq!(disk.image.path, saved.path(&format!("copy-{}", disk.vdev)));
        }

        // What the guest had said about itself is there, under its new number, and its own to change.
        assert_eq!(saved.guest_node(&copy, "data/booted"), Some(saved.web.uuid.to_string()));
        assert_eq!(saved.guest_node(&copy, "control/feature-suspend").as_deref(), Some("1"));
        assert_eq!(saved.guest_node(&copy, "name").as_deref(), Some("copy"));
        let booted = format!("/local/domain/{}/data/booted", copy.domid).parse().unwrap();
        let owner = saved.xenstore().get_perms(&booted).unwrap().entries()[0].domid;
        assert_eq!(owner, DomId::new(copy.domid.get()));
        assert!(restored.xenstore.unwrap().changes > 0);

        saved.control().unpause(&copy, soon()).unwrap();
        saved.ticks(&copy);
        saved.ticks(&saved.web);
        saved.frozen_is_as_it_was();
        let states =
            BTreeMap::from(["copy", "web"].map(|name| (name.into(), DomainState::Running)));
        assert_eq!(saved.domains(), states);
    }
}

#[test]
fn a_snapshot_is_restored_several_times_and_each_copy_writes_its_own_images() {
    const TEST: &str = "a_snapshot_is_restored_several_times_and_each_copy_writes_its_own_images";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let restored: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|name| {
            let plan = saved.plan(saved.request(name));
            saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap()
        })
        .collect();
    for restored in &restored {
        assert_eq!(restored.state, Some(DomainState::Running));
        saved.ticks(&restored.domain.unwrap());
    }
    saved.ticks(&saved.web);
    saved.frozen_is_as_it_was();
}
