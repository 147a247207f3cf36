//! What a toolstack keeps of a domain: its template and its nodes say the same, and a move of its disks gets into both.

use libxl_config::DomainConfig;
use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{Image, ReplaceImage, Replacement};
use libxl_config::retrieve::{Retrieved, Retriever};
use libxl_config::template::{TemplateKey, TemplateStore, UserdataDir};
use snapshot::control::{DomainControl, DomainIdentity};
use snapshot::simulated::{DomainSpec, GuestSpec};
use xsclient::{Client, Endpoint, Options};

use crate::hosts::{PAGES, SEED, TestHost, soon, start, uuid_of};

struct Toolstack {
    client: Client,
    templates: UserdataDir,
}

impl Toolstack {
    fn of(host: &TestHost) -> Self {
        let view = host.operator().host(soon()).unwrap();
        let endpoint = Endpoint::UnixSocket(view.xenstore.unwrap());
        let client = Client::open(endpoint, Options::default()).unwrap();
        Self { client, templates: UserdataDir::open(view.templates.unwrap()).unwrap() }
    }

    fn retrieve(&mut self, domain: &DomainIdentity) -> Retrieved {
        Retriever::new(&mut self.client, &self.templates).retrieve(domain.domid).unwrap()
    }

    /// What both views agree on.
    fn agreed(&mut self, domain: &DomainIdentity) -> DomainConfig {
        let retrieved = self.retrieve(domain);
        assert!(retrieved.report.is_clean(), "{:#?}", retrieved.report);
        retrieved.config
    }

    fn has_template(&self, domain: &DomainIdentity) -> bool {
        let key = TemplateKey::new(domain.domid, domain.uuid);
        self.templates.load(&key, soon()).unwrap().is_some()
    }
}

#[test]
fn template_and_xenstore_of_created_and_built_domains_agree_and_end_with_them() {
    let host = start();
    let mut toolstack = Toolstack::of(&host);
    let domain = host.running("web");
    let created = toolstack.agreed(&domain);
    assert_eq!(created.c_info.name.as_deref(), Some("web"));
    assert_eq!(created.c_info.uuid, domain.uuid);
    assert_eq!(created.b_info.target_memkb.get(), Some(PAGES * 4));
    assert_eq!(created.b_info.max_vcpus, 2);
    let disks: Vec<_> =
        created.disks.iter().map(|disk| (disk.vdev.clone(), disk.pdev_path.clone())).collect();
    let expected = [("xvda", "web-a"), ("xvdb", "web-b")].map(|(vdev, image)| {
        (Some(vdev.to_owned()), Some(host.path(image).to_str().unwrap().to_owned()))
    });
    assert_eq!(disks, expected);

    let stream = host.suspended_to(&domain, "memory");
    let config = host.copied("web", "copy");
    let copy = host.build(&config, &stream).identity;
    let built = toolstack.agreed(&copy);
    assert_eq!((&built.c_info, &built.disks), (&config.c_info, &config.disks));
    assert_eq!(built.b_info.max_memkb, config.b_info.max_memkb);

    host.control().destroy(&domain, soon()).unwrap();
    assert!(!toolstack.has_template(&domain) && toolstack.has_template(&copy));
    toolstack.agreed(&copy);
}

#[test]
fn a_replaced_image_gets_into_both_views() {
    let host = start();
    let mut toolstack = Toolstack::of(&host);
    // Nobody moves the raw disk here: it is the views that are looked at.
    let spec = DomainSpec::new("web", uuid_of("web"), GuestSpec::new(SEED, PAGES))
        .with_disk("xvda", host.image("web-a"))
        .with_disk("xvdb", host.image("web-b"));
    let domain = host.operator().create(spec, soon()).unwrap().identity;
    let new = [
        Replacement::new("xvda", Image::new("/srv/web-a-1", DiskFormat::Qcow2)),
        Replacement::new("xvdb", Image::new("/srv/web-b-1", DiskFormat::Qcow2)),
    ];
    let Toolstack { client, templates } = &mut toolstack;
    ReplaceImage::new(client, templates).replace(domain.domid, &new).unwrap();
    let config = toolstack.agreed(&domain);
    let images: Vec<_> = config.disks.iter().map(|disk| disk.pdev_path.as_deref()).collect();
    assert_eq!(images, [Some("/srv/web-a-1"), Some("/srv/web-b-1")]);
    assert!(config.disks.iter().all(|disk| disk.format == DiskFormat::Qcow2));
}
