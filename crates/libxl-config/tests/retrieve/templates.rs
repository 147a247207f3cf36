//! Which template counts, and what happens without one.

use std::error::Error;

use libxl_config::model::{DiskBackend, SchedParams};
use libxl_config::retrieve::{
    DeviceNote, HypervisorDomain, HypervisorView, Policy, Presence, RetrieveError, Retriever,
    Source, TemplateSource, Unseen,
};
use libxl_config::template::{DomId, MemoryStore, TemplateKey, TemplateText, create};
use uuid::Uuid;
use xsclient::Request;

use crate::hosts::{self, GUEST, client, deadline, key, retrieve, template, templates, vdevs};

fn other_uuid() -> Uuid {
    Uuid::from_u128(1)
}

#[test]
fn of_several_templates_with_one_domid_the_one_of_the_running_domain_counts() {
    let store = templates(&["xvda"]);
    let stale = TemplateText::new(r#"{ "c_info": { "name": "stale" } }"#).unwrap();
    create(&store, &TemplateKey::new(GUEST, other_uuid()), &stale, deadline()).unwrap();
    let retrieved = retrieve(&hosts::xenstore(), &store);
    assert!(matches!(retrieved.report.template, TemplateSource::Found { .. }));
    assert_eq!(retrieved.config.c_info.uuid, hosts::uuid());
}

#[test]
fn a_template_that_a_former_domain_left_is_not_taken_for_this_ones() {
    let store = MemoryStore::new();
    create(&store, &TemplateKey::new(GUEST, other_uuid()), &template(&["xvdz"]), deadline())
        .unwrap();
    let retrieved = retrieve(&hosts::xenstore(), &store);
    assert_eq!(
        retrieved.report.template,
        TemplateSource::OfAnotherDomain { uuids: vec![other_uuid()] }
    );
    assert_eq!(vdevs(&retrieved), ["xvda"]);
}

#[test]
fn without_a_template_the_answer_is_built_from_xenstore_and_says_so() {
    let retrieved = retrieve(&hosts::xenstore(), &MemoryStore::new());
    assert_eq!(retrieved.report.template, TemplateSource::Missing);
    let config = &retrieved.config;
    assert_eq!(config.c_info.name.as_deref(), Some("web"));
    assert_eq!(config.c_info.uuid, hosts::uuid());
    assert_eq!((config.b_info.max_vcpus, config.b_info.target_memkb.get()), (1, Some(262_144)));
    assert_eq!(vdevs(&retrieved), ["xvda"]);
    assert_eq!(retrieved.report.devices[0].note, Some(DeviceNote::Built));
    let disk = &config.disks[0];
    assert_eq!(disk.pdev_path.as_deref(), Some("/srv/xvda.img"));
    // What the template leaves to libxl, Xenstore tells.
    assert_eq!((&disk.backend, disk.readwrite), (&DiskBackend::Phy, 1));
}

#[test]
fn a_template_that_cannot_be_parsed_is_reported_and_the_rest_answered() {
    let store = MemoryStore::new();
    create(&store, &key(), &TemplateText::new("{ \"c_info\": { \"na").unwrap(), deadline())
        .unwrap();
    let retrieved = retrieve(&hosts::xenstore(), &store);
    assert!(
        matches!(retrieved.report.template, TemplateSource::Unreadable { .. }),
        "{:?}",
        retrieved.report.template
    );
    assert_eq!(vdevs(&retrieved), ["xvda"]);
}

#[test]
fn a_domain_that_is_not_there_is_an_error_and_not_an_empty_answer() {
    let xenstore = hosts::xenstore();
    let mut client = client(&xenstore);
    let store = templates(&["xvda"]);
    let mut retriever = Retriever::new(&mut client, &store);
    let gone = DomId::new(8);
    assert!(
        matches!(retriever.retrieve(gone), Err(RetrieveError::NoSuchDomain { domid }) if domid == gone)
    );
    assert!(matches!(retriever.retrieve(DomId::SELF), Err(RetrieveError::ReservedDomId { .. })));
    hosts::apply(&xenstore, Request::Rm("/local/domain/7".parse().unwrap()));
    assert!(matches!(retriever.retrieve(GUEST), Err(RetrieveError::NoSuchDomain { .. })));
    // Unless the template alone is asked for.
    let retrieved = retriever.policy(Policy::Template).retrieve(GUEST).unwrap();
    assert_eq!(vdevs(&retrieved), ["xvda"]);
}

#[test]
fn of_several_templates_of_a_domain_that_is_gone_none_is_taken() {
    let store = templates(&["xvda"]);
    create(&store, &TemplateKey::new(GUEST, other_uuid()), &template(&["xvdz"]), deadline())
        .unwrap();
    let xenstore = hosts::xenstore();
    hosts::apply(&xenstore, Request::Rm("/local/domain/7".parse().unwrap()));
    let mut client = client(&xenstore);
    let answer = Retriever::new(&mut client, &store).policy(Policy::Template).retrieve(GUEST);
    assert!(matches!(answer, Err(RetrieveError::NoSuchDomain { .. })), "{answer:?}");
}

#[test]
fn the_policy_decides_which_devices_are_in_the_configuration_and_the_report_has_them_all() {
    // xvda is in both, xvdb in the template only, xvdc in Xenstore only.
    let xenstore = hosts::xenstore();
    for request in hosts::disk("xvdc", 51744, "4") {
        hosts::apply(&xenstore, request);
    }
    let store = templates(&["xvdb", "xvda"]);
    for (policy, expected) in [
        (Policy::LiveWins, &["xvda", "xvdc"][..]),
        (Policy::Union, &["xvdb", "xvda", "xvdc"]),
        (Policy::Template, &["xvdb", "xvda"]),
    ] {
        let retrieved =
            Retriever::new(&mut client(&xenstore), &store).policy(policy).retrieve(GUEST).unwrap();
        assert_eq!(vdevs(&retrieved), expected, "{policy:?}");
        let presence: Vec<_> = retrieved
            .report
            .devices
            .iter()
            .map(|device| (device.id.as_str(), device.presence))
            .collect();
        assert_eq!(
            presence,
            [
                ("xvdb", Presence::TemplateOnly),
                ("xvda", Presence::Both),
                ("xvdc", Presence::XenstoreOnly)
            ],
            "{policy:?}"
        );
        for device in &retrieved.report.devices {
            assert_eq!(
                device.in_configuration,
                expected.contains(&device.id.as_str()),
                "{policy:?} {}",
                device.id
            );
        }
    }
}

/// An HVM guest with 8 MiB of video memory, whose target libxl wrote without it and, since it may grow, 1 MiB less.
fn retrieve_hvm(video_memkb: &str) -> libxl_config::retrieve::Retrieved {
    let text = format!(
        r#"{{ "c_info": {{ "type": "hvm", "name": "web", "uuid": "{}" }},
              "b_info": {{ "max_memkb": 524288, "target_memkb": 262144, {video_memkb} "type.hvm": {{}} }} }}"#,
        hosts::uuid(),
    );
    let store = MemoryStore::new();
    create(&store, &key(), &TemplateText::new(text).unwrap(), deadline()).unwrap();
    let xenstore = hosts::xenstore();
    for (key, kib) in [("static-max", "524288"), ("target", "252928"), ("videoram", "8192")] {
        hosts::apply(&xenstore, hosts::write(&format!("/local/domain/7/memory/{key}"), kib));
    }
    retrieve(&xenstore, &store)
}

#[test]
fn the_target_of_a_guest_stays_whether_or_not_its_template_says_how_much_is_video_memory() {
    for video_memkb in [r#""video_memkb": 8192,"#, ""] {
        let retrieved = retrieve_hvm(video_memkb);
        let target = retrieved.report.knob("b_info.target_memkb").unwrap();
        assert_eq!(target.source, Source::Both, "{video_memkb} {target:?}");
        assert_eq!(retrieved.config.b_info.target_memkb.get(), Some(262_144));
    }
}

#[test]
fn no_amount_of_video_memory_overflows() {
    let retrieved = retrieve_hvm(r#""video_memkb": 18446744073709551614,"#);
    assert!(retrieved.report.knob("b_info.target_memkb").is_some());
}

struct Hypervisor(Option<HypervisorDomain>);

impl HypervisorView for Hypervisor {
    fn domain(
        &self,
        _domid: DomId,
    ) -> Result<Option<HypervisorDomain>, Box<dyn Error + Send + Sync>> {
        self.0.clone().map(Some).ok_or_else(|| "the hypervisor does not answer".into())
    }
}

#[test]
fn what_only_the_hypervisor_knows_comes_from_it_or_is_reported_as_unseen() {
    let params = SchedParams { weight: 512, ..SchedParams::default() };
    let real = other_uuid();
    let store = MemoryStore::new();
    create(&store, &TemplateKey::new(GUEST, real), &template(&["xvda"]), deadline()).unwrap();
    let asked = Hypervisor(Some(HypervisorDomain::new(real, params.clone())));
    let xenstore = hosts::xenstore();
    let retrieved =
        Retriever::new(&mut client(&xenstore), &store).hypervisor(&asked).retrieve(GUEST).unwrap();
    // The template is filed under the handle, whatever /vm says since a rename.
    assert!(matches!(retrieved.report.template, TemplateSource::Found { .. }));
    assert_eq!(retrieved.config.c_info.uuid, real);
    assert_eq!(retrieved.config.b_info.sched_params, params);
    assert_eq!(retrieved.report.knob("b_info.sched_params").unwrap().source, Source::Hypervisor);

    let silent = Hypervisor(None);
    let retrieved =
        Retriever::new(&mut client(&xenstore), &store).hypervisor(&silent).retrieve(GUEST).unwrap();
    assert!(
        retrieved
            .report
            .unseen
            .iter()
            .any(|unseen| matches!(unseen, Unseen::HypervisorFailed { .. }))
    );
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    assert!(
        retrieved.report.unseen.iter().any(|unseen| matches!(unseen, Unseen::Hypervisor { .. }))
    );
}
