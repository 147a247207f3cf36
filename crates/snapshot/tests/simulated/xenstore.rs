//! The host's Xenstore holds what a toolstack and a guest write there, and loses what libxl loses.

use snapshot::control::DomainControl;
use snapshot::xenstore_state::{ExtractRequest, extract};
use xsclient::{Client, Endpoint, Nodes, Options};

use crate::hosts::{TestHost, soon, start};

fn client(host: &TestHost) -> Client {
    let socket = host.operator().host(soon()).unwrap().xenstore.unwrap();
    Client::open(Endpoint::UnixSocket(socket), Options::default()).unwrap()
}

#[test]
fn a_domain_has_its_nodes_from_its_creation_to_its_destruction() {
    let host = start();
    let mut client = client(&host);
    let domain = host.running("web");
    let domid = domain.domid;
    let path = |rest: &str| format!("/local/domain/{domid}/{rest}").parse().unwrap();
    assert_eq!(client.read_text(&path("name")).unwrap(), "web");
    assert_eq!(client.read_text(&path("control/feature-suspend")).unwrap(), "1");
    let params = format!("/local/domain/0/backend/qdisk/{domid}/51712/params").parse().unwrap();
    let image = format!("aio:{}", host.path("web-a").display());
    assert_eq!(client.read_text(&params).unwrap(), image);
    assert!(client.is_domain_introduced(domid).unwrap());

    host.control().rename(&domain, "mail", soon()).unwrap();
    assert_eq!(client.read_text(&path("name")).unwrap(), "mail");
    host.control().destroy(&domain, soon()).unwrap();
    assert!(!client.is_domain_introduced(domid).unwrap());
    assert!(client.read_text(&path("name")).is_err());
    assert!(client.read_text(&params).is_err());
    assert!(client.read_text(&format!("/vm/{}/name", domain.uuid).parse().unwrap()).is_err());
}

#[test]
fn a_restored_guest_finds_its_nodes_empty_as_after_libxl() {
    let host = start();
    let mut client = client(&host);
    let domain = host.running("web");
    let stream = host.suspended_to(&domain, "memory");
    let copy = host.build(&host.copied("web", "copy"), &stream).identity;
    let read = |client: &mut Client, domid, rest: &str| {
        client.read_text(&format!("/local/domain/{domid}/{rest}").parse().unwrap())
    };
    assert_eq!(read(&mut client, domain.domid, "data/booted").unwrap(), domain.uuid.to_string());
    assert!(read(&mut client, copy.domid, "data/booted").is_err());
    assert_eq!(read(&mut client, copy.domid, "control/feature-suspend").unwrap(), "");
    // What the rest of the crate carries is there to be read.
    let extracted = extract(&mut client, &ExtractRequest::new(domain.domid, soon())).unwrap();
    let booted = format!("/local/domain/{}/data/booted", domain.domid).parse().unwrap();
    assert!(extracted.state.nodes.contains_key(&booted));
}
