use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;
use xenstore_migration::domain_state::{RestorePolicy, RestoreRule, Treatment};
use xsclient::DomId;

use super::RequestError;
use crate::Target;
use crate::control::DomainIdentity;
use crate::disk::image::ImageFormat;
use crate::disk::{BackingName, CopyMethod};
use crate::image::packed::Codec;
use crate::manifest::sample;
use crate::restore::{
    Depth, DiskRestore, GenerationId, NewIdentity, NicChange, RestoreDeadlines, RestoreMode,
    RestoreRequest, Source, Start, UuidChoice,
};
use crate::save::{
    After, ConfigUpdate, Consistency, DiskRequest, DiskRequestAction, Durability, Hold,
    MemoryFormat, MemoryRequest, OnQuiesceFailure, QuiesceRequest, SaveDeadlines, SaveRequest,
};

fn descriptor() -> Arc<OwnedFd> {
    Arc::new(File::open("/dev/null").unwrap().into())
}

fn domain() -> DomainIdentity {
    DomainIdentity::new(DomId::new(7), sample::DOMAIN)
}

fn path(text: &str) -> Target {
    Target::Path(text.into())
}

fn again(request: &SaveRequest) -> SaveRequest {
    let (text, fds) = request.to_json().unwrap();
    SaveRequest::from_json(&text, &fds).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn restored_again(request: &RestoreRequest) -> RestoreRequest {
    let (text, fds) = request.to_json().unwrap();
    RestoreRequest::from_json(&text, &fds).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether both say the same, down to the descriptors themselves.
fn assert_same(left: &impl std::fmt::Debug, right: &impl std::fmt::Debug) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

fn rich_save() -> SaveRequest {
    let directory = descriptor();
    let in_directory =
        |name: &str| Target::InDirectory { directory: Arc::clone(&directory), name: name.into() };
    let actions = [
        DiskRequestAction::Skip { reason: "swap".into() },
        DiskRequestAction::ExternalQcow2 {
            overlay: in_directory("root-1"),
            node: Some("a".into()),
            overlay_node: Some("b".into()),
            backing: BackingName::As("../root".into()),
            digest: true,
        },
        DiskRequestAction::ExternalQcow2 {
            overlay: path("/images/data-1"),
            node: None,
            overlay_node: None,
            backing: BackingName::Absolute,
            digest: false,
        },
        DiskRequestAction::InternalQcow2 { tag: "t".into(), node: Some("c".into()) },
        DiskRequestAction::Copy {
            destination: in_directory("copy"),
            method: CopyMethod::ReflinkOrSparse,
            digest: true,
        },
        DiskRequestAction::Hook { name: "lvm".into() },
    ];
    let disks = actions.into_iter().enumerate();
    SaveRequest {
        domain: domain(),
        disks: disks.map(|(at, action)| DiskRequest { vdev: format!("xvd{at}"), action }).collect(),
        qmp: Some("/run/qmp".into()),
        memory: Some(MemoryRequest {
            target: Target::Descriptor(descriptor()),
            format: MemoryFormat::Stream { side_digest: Some(in_directory("side")) },
            live: true,
        }),
        xenstore: Some(path("/saved/xenstore")),
        quiesce: Some(QuiesceRequest {
            hook: "agent".into(),
            deadline: Duration::from_millis(1500),
            on_failure: OnQuiesceFailure::MarkCrashConsistent,
        }),
        hold: Hold::Running,
        after: After::Destroy,
        min_consistency: Consistency::Quiesced,
        durability: Durability::None,
        deadlines: SaveDeadlines {
            suspend: Duration::from_millis(1),
            disks: Duration::from_millis(2),
            total: Duration::from_millis(3),
        },
        space_check: false,
        config: ConfigUpdate::Leave,
        journal: Some(in_directory("journal")),
    }
}

fn rich_restore() -> RestoreRequest {
    let pattern = "/vm/*/image/**".parse().unwrap();
    let rule = RestoreRule::of_anybody(pattern, Treatment::Leave);
    RestoreRequest {
        snapshot: sample::snapshot(),
        memory: Some(Source::Descriptor(descriptor())),
        xenstore: Some(Source::Path("/moved/xenstore".into())),
        mode: RestoreMode::Replace { domain: domain(), free_first: true },
        identity: NewIdentity {
            name: Some("copy".into()),
            uuid: UuidChoice::New(Uuid::from_u128(9)),
        },
        nics: [
            (0, NicChange { mac: Some([0, 0x16, 0x3e, 1, 2, 0xff]), bridge: None }),
            (11, NicChange { mac: None, bridge: Some("xenbr1".into()) }),
        ]
        .into(),
        disks: BTreeMap::from([
            ("xvda".into(), DiskRestore::NewOverlay { overlay: path("/images/root-2") }),
            ("xvdb".into(), DiskRestore::AdoptActive),
            ("xvdc".into(), DiskRestore::FrozenReadOnly),
            ("xvdd".into(), DiskRestore::AsConfigured),
            (
                "xvde".into(),
                DiskRestore::Image {
                    path: "/images/e".into(),
                    format: ImageFormat::Raw,
                    verify: true,
                },
            ),
        ]),
        policy: Some(RestorePolicy::exact().before(rule)),
        generation_id: GenerationId::Keep,
        start: Start::Paused,
        verify: Depth::Full,
        durability: Durability::None,
        deadlines: RestoreDeadlines {
            build: Duration::from_millis(4),
            total: Duration::from_millis(5),
        },
        journal: Some(path("/journals/r")),
    }
}

#[test]
fn a_request_with_something_in_every_field_is_read_as_it_was_written() {
    let (save, restore) = (rich_save(), rich_restore());
    assert_same(&again(&save), &save);
    assert_same(&restored_again(&restore), &restore);
    // A directory that several targets are in is passed once.
    assert_eq!(save.to_json().unwrap().1.len(), 2);
}

#[test]
fn what_is_left_out_is_what_a_new_request_has() {
    let text = json!({ "domain": { "domid": 7, "uuid": sample::DOMAIN } }).to_string();
    let read = SaveRequest::from_json(&text, &[]).unwrap();
    assert_same(&read, &SaveRequest::new(domain()));
    let text = json!({ "snapshot": sample::snapshot().to_json().unwrap() }).to_string();
    let read = RestoreRequest::from_json(&text, &[]).unwrap();
    assert_same(&read, &RestoreRequest::new(sample::snapshot()));
}

#[test]
fn every_policy_has_a_form_and_null_is_none() {
    let named = [RestorePolicy::nothing(), RestorePolicy::cooperative(), RestorePolicy::exact()];
    let mut request = RestoreRequest::new(sample::empty());
    for (policy, name) in named.into_iter().zip(["nothing", "cooperative", "exact"]) {
        request.policy = Some(policy);
        let text: Value = serde_json::from_str(&request.to_json().unwrap().0).unwrap();
        assert_eq!(text["policy"], name);
        assert_same(&restored_again(&request), &request);
    }
    request.policy = None;
    assert!(restored_again(&request).policy.is_none());
}

/// The error of a request in which the value at a JSON pointer is another one.
fn error_with(mut request: Value, pointer: &str, value: Value) -> String {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match request.pointer_mut(parent).unwrap() {
        Value::Array(values) => values[name.parse::<usize>().unwrap()] = value,
        values => values[name] = value,
    }
    let text = request.to_string();
    let fds = [descriptor(), descriptor()];
    let error = if request.get("snapshot").is_some() {
        RestoreRequest::from_json(&text, &fds).map(drop)
    } else {
        SaveRequest::from_json(&text, &fds).map(drop)
    };
    error.expect_err(pointer).to_string()
}

#[test]
fn errors_name_the_place_and_say_what_to_do() {
    let save: Value = serde_json::from_str(&rich_save().to_json().unwrap().0).unwrap();
    let restore: Value = serde_json::from_str(&rich_restore().to_json().unwrap().0).unwrap();
    let overlay = "/disks/1/action/external-qcow2/overlay";
    let cases = [
        (&save, "/nonsense", json!(1), "`nonsense`: unknown field"),
        (&save, "/after", json!("explode"), "`after`: unknown variant"),
        (&save, "/domain/domid", json!(70_000), "`domain.domid`"),
        (&save, "/domain/name", json!("x"), "`domain.name`: unknown field"),
        (&save, "/disks/2", json!({ "vdev": "x" }), "`disks[2]`: missing field `action`"),
        (&save, overlay, json!({ "path": "/a", "fd": 1 }), "say one of `path`, `directory_fd`"),
        (&save, overlay, json!({ "directory_fd": 1 }), "`disks[1].action.external-qcow2.overlay`"),
        (&save, overlay, json!({ "fd": 2 }), "overlay.fd` is descriptor 2, and 2 were given: pass"),
        (&save, overlay, json!({ "fd": -1 }), "overlay"),
        (
            &save,
            "/quiesce/deadline_ms",
            json!(u64::MAX),
            "`quiesce.deadline_ms`: longer than a year",
        ),
        (&save, "/deadlines/hours", json!(1), "`deadlines.hours`"),
        (&restore, "/snapshot", json!("{}"), "`snapshot` is not the text of a manifest"),
        (&restore, "/snapshot", json!(sample::empty()), "`snapshot`: invalid type: map"),
        (&restore, "/nics/0/mac", json!("00:16:3e"), "`nics.0.mac`: \"00:16:3e\" is no address"),
        (&restore, "/nics/0/mac", json!("+1:16:3e:0:0:0"), "is no address"),
        (&restore, "/nics/first", json!({}), "expected key to be a number in quotes"),
        (
            &restore,
            "/disks/xvda",
            json!({ "new-overlay": { "overlay": { "fd": 9 } } }),
            "`disks.xvda.new-overlay.overlay.fd` is descriptor 9",
        ),
        (&restore, "/disks/xvda", json!("fresh"), "`disks.xvda`: unknown variant `fresh`"),
        (&restore, "/policy", json!("kind"), "`policy`: unknown variant"),
        (&restore, "/policy/rules/list/0/pattern", json!("a//b"), "list[0].pattern`"),
        (
            &restore,
            "/memory",
            json!({ "directory_fd": 0, "name": "x" }),
            "say one of `path` and `fd`",
        ),
    ];
    for (request, pointer, value, expected) in cases {
        let error = error_with(request.clone(), pointer, value.clone());
        assert!(error.contains(expected), "{pointer} = {value}: {error}");
    }
}

#[test]
fn what_is_there_twice_or_goes_on_is_refused() {
    let (text, fds) = rich_restore().to_json().unwrap();
    let twice = text.replacen("\"xvdc\"", "\"xvdb\"", 1);
    let error = RestoreRequest::from_json(&twice, &fds).unwrap_err().to_string();
    assert!(error.contains("`xvdb` is there twice"), "{error}");
    let twice = text.replacen("\"start\"", "\"start\": \"run\", \"start\"", 1);
    assert!(RestoreRequest::from_json(&twice, &fds).is_err());
    assert!(RestoreRequest::from_json(&format!("{text}x"), &fds).is_err());
    assert!(RestoreRequest::from_json(&format!("{text}\n"), &fds).is_ok());
    let long = " ".repeat(super::REQUEST_MAX + 1);
    let error = SaveRequest::from_json(&long, &[]).unwrap_err();
    assert!(matches!(error, RequestError::TooLong { .. }), "{error}");
}

#[test]
fn a_path_that_is_no_text_is_refused_and_not_changed() {
    let mut request = SaveRequest::new(domain());
    let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/a/\xff".to_vec()));
    request.xenstore = Some(Target::Path(odd.clone()));
    let error = request.to_json().unwrap_err();
    let RequestError::NotText { at, path } = error else { panic!("{error}") };
    assert_eq!((&at[..], path), ("xenstore", odd));
}

#[test]
fn the_descriptor_that_is_named_is_the_one_that_is_used() {
    let (first, second) = (descriptor(), descriptor());
    let text = json!({
        "domain": { "domid": 7, "uuid": sample::DOMAIN },
        "xenstore": { "fd": 1 },
        "journal": { "directory_fd": 0, "name": "j" },
    });
    let fds = [Arc::clone(&first), Arc::clone(&second)];
    let request = SaveRequest::from_json(&text.to_string(), &fds).unwrap();
    let Some(Target::Descriptor(xenstore)) = &request.xenstore else { panic!() };
    let Some(Target::InDirectory { directory, .. }) = &request.journal else { panic!() };
    assert_eq!(xenstore.as_raw_fd(), second.as_raw_fd());
    assert_eq!(directory.as_raw_fd(), first.as_raw_fd());
}

fn any_target(fds: Vec<Arc<OwnedFd>>) -> impl Strategy<Value = Target> {
    let fd = prop::sample::select(fds);
    prop_oneof![
        any::<String>().prop_map(|text| Target::Path(text.into())),
        fd.clone().prop_map(Target::Descriptor),
        (fd, any::<String>())
            .prop_map(|(directory, name)| Target::InDirectory { directory, name: name.into() }),
    ]
}

fn any_action(fds: Vec<Arc<OwnedFd>>) -> impl Strategy<Value = DiskRequestAction> {
    let name = || prop::option::of(any::<String>());
    let method = prop::sample::select(vec![CopyMethod::Reflink, CopyMethod::Sparse]);
    prop_oneof![
        any::<String>().prop_map(|reason| DiskRequestAction::Skip { reason }),
        any::<String>().prop_map(|name| DiskRequestAction::Hook { name }),
        (any::<String>(), name())
            .prop_map(|(tag, node)| DiskRequestAction::InternalQcow2 { tag, node }),
        (any_target(fds.clone()), method, any::<bool>()).prop_map(
            |(destination, method, digest)| DiskRequestAction::Copy { destination, method, digest }
        ),
        (any_target(fds), name(), name(), name(), any::<bool>()).prop_map(
            |(overlay, node, overlay_node, backing, digest)| {
                let backing =
                    backing.map_or(BackingName::Absolute, |it| BackingName::As(it.into()));
                DiskRequestAction::ExternalQcow2 { overlay, node, overlay_node, backing, digest }
            }
        ),
    ]
}

fn any_format(fds: Vec<Arc<OwnedFd>>) -> impl Strategy<Value = MemoryFormat> {
    let codec = prop_oneof![Just(Codec::Lz4), any::<i32>().prop_map(|level| Codec::Zstd { level })];
    prop_oneof![
        Just(MemoryFormat::Mapped),
        (codec, any::<usize>())
            .prop_map(|(codec, workers)| MemoryFormat::Packed { codec, workers }),
        prop::option::of(any_target(fds))
            .prop_map(|side_digest| MemoryFormat::Stream { side_digest }),
    ]
}

fn any_save() -> impl Strategy<Value = SaveRequest> {
    let fds: Vec<_> = (0..3).map(|_| descriptor()).collect();
    let memory = (any_target(fds.clone()), any_format(fds.clone()), any::<bool>())
        .prop_map(|(target, format, live)| MemoryRequest { target, format, live });
    (
        prop::collection::vec((any::<String>(), any_action(fds.clone())), 0..4),
        prop::option::of(memory),
        prop::option::of(any_target(fds)),
        any::<u16>(),
        prop::option::of(any::<String>()),
        any::<(bool, bool)>(),
    )
        .prop_map(|(disks, memory, target, domid, qmp, (space_check, leave))| SaveRequest {
            disks: disks.into_iter().map(|(vdev, action)| DiskRequest { vdev, action }).collect(),
            memory,
            xenstore: target.clone(),
            journal: target,
            qmp: qmp.map(PathBuf::from),
            space_check,
            after: if leave { After::LeavePaused } else { After::Resume },
            ..SaveRequest::new(DomainIdentity::new(DomId::new(domid), sample::DOMAIN))
        })
}

proptest! {
    #[test]
    fn any_save_request_is_read_as_it_was_written(request in any_save()) {
        assert_same(&again(&request), &request);
    }
}
