//! Failures at every step: what the error says of each view is what stands there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libxl_config::replace_image::{ReplaceError, ReplaceImage, UndoError, ViewState};
use libxl_config::template::{
    DomId, HeldTemplate, ListError, LoadError, LockError, MemoryStore, Revision, StoreFault,
    Template, TemplateKey, TemplateStore, TemplateText, WriteError, WritePermit,
};
use xenstored::{Embedded, Store};
use xsclient::{Client, Endpoint, Options, Request};

use crate::hosts::{self, GUEST, overlays};

/// How many requests a replacement sends.
fn requests() -> usize {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    xenstore.set_interceptor(Some(Box::new(move |_, _, _, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    })));
    hosts::replace(&xenstore, &templates, &overlays()).unwrap();
    count.load(Ordering::Relaxed)
}

#[test]
fn a_server_that_goes_before_any_request_leaves_what_the_error_says() {
    let total = requests();
    assert!(total > 20, "{total} requests");
    let mut unanswered = 0;
    for at in 0..total {
        let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
        let mut n = 0;
        xenstore.set_interceptor(Some(Box::new(move |server, connection, _, _| {
            if n == at {
                server.disconnect(connection);
            }
            n += 1;
        })));
        let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
        let views = error.views();
        assert_eq!(views.template, hosts::template(&templates), "before request {at}: {error}");
        if views.live == ViewState::Unknown {
            assert!(matches!(error, ReplaceError::CommitUnanswered { .. }), "{error}");
            unanswered += 1;
        } else {
            assert_eq!(views.live, hosts::live(&xenstore), "before request {at}: {error}");
        }
        assert_eq!(views.template, ViewState::Old);
        xenstore.set_interceptor(None);
        // Nobody holds the lock any more, and another call goes through.
        hosts::replace(&xenstore, &templates, &overlays()).unwrap();
        assert_eq!(hosts::live(&xenstore), ViewState::New);
        assert_eq!(hosts::template(&templates), ViewState::New);
    }
    assert_eq!(unanswered, 1, "only a commit leaves it open");
}

#[test]
fn a_change_before_any_request_is_seen_or_a_conflict_and_tried_again() {
    let mut conflicts = 0;
    for at in 0..requests() {
        let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
        let (mut n, starts) = (0, Arc::new(AtomicUsize::new(0)));
        let started = Arc::clone(&starts);
        xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
            if matches!(request, Request::TransactionStart) {
                started.fetch_add(1, Ordering::Relaxed);
            }
            if n == at {
                // The guest has reconnected, and somebody has given the backend's node the value it has.
                server.apply(hosts::write("/local/domain/0/backend/qdisk/7/51712/state", "2"));
                server.apply(hosts::write("/local/domain/7/device/vbd/51712/state", "1"));
            }
            n += 1;
        })));
        hosts::replace(&xenstore, &templates, &overlays()).unwrap();
        assert_eq!(hosts::live(&xenstore), ViewState::New, "before request {at}");
        assert_eq!(hosts::template(&templates), ViewState::New, "before request {at}");
        conflicts += usize::from(starts.load(Ordering::Relaxed) > 1);
    }
    assert!(conflicts > 0);
}

#[test]
fn a_disk_unplugged_before_any_request_is_refused_or_was_replaced_before() {
    let (mut refused, mut done) = (0, 0);
    for at in 0..requests() {
        let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
        let mut n = 0;
        xenstore.set_interceptor(Some(Box::new(move |server, _, _, _| {
            if n == at {
                for path in [
                    "/libxl/7/device/vbd/51728",
                    "/local/domain/7/device/vbd/51728",
                    "/local/domain/0/backend/qdisk/7/51728",
                ] {
                    server.apply(hosts::rm(path));
                }
            }
            n += 1;
        })));
        match hosts::replace(&xenstore, &templates, &overlays()) {
            Ok(_) => done += 1,
            Err(error) => {
                assert!(matches!(error, ReplaceError::Refused { .. }), "before {at}: {error}");
                let xvda = hosts::params("xvda").map(|path| path.parse().unwrap());
                let store = xenstore.snapshot();
                assert!(xvda.iter().all(|path| store.read(path) == Some(&b"aio:/srv/a.img"[..])));
                assert_eq!(hosts::template(&templates), ViewState::Old);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "{refused} refused, {done} done");
    assert_eq!(done, 0, "the commit is the last request, and conflicts");
}

#[test]
fn somebody_who_never_stops_changing_is_given_up_on() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let mut n = 0;
    xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
        if matches!(request, Request::TransactionEnd { commit: true }) {
            n += 1;
            let path = "/libxl/7/device/vbd/51712/params";
            server.apply(hosts::write(path, &format!("aio:/srv/{n}.img")));
        }
    })));
    let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::Conflict { attempts: 100, .. }), "{error}");
    assert_eq!(hosts::template(&templates), ViewState::Old);
}

#[test]
fn a_write_that_is_refused_changes_neither_view() {
    // Domain 3 may read everything and write nothing of it.
    let text = hosts::xenstore().snapshot().to_text();
    let text = text.replace("(n0,r7)", "(n0,r7,r3)").replace("(n7,r0)", "(n7,r0,r3)");
    let text = text.replace("(n0)", "(n0,r3)");
    let xenstore = Embedded::new(Store::from_text(text).unwrap());
    let templates = hosts::templates();
    let transport = Box::new(xenstore.transport(DomId::new(3)));
    let mut client = Client::over(transport, Options::default());
    let error = ReplaceImage::new(&mut client, &templates).replace(GUEST, &overlays()).unwrap_err();
    let ReplaceError::Xenstore { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.errno(), Some(&xsclient::Errno::EACCES));
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
    assert_eq!(hosts::template(&templates), ViewState::Old);
}

/// The server stops answering for a while just before the commit.
#[test]
fn a_commit_that_is_answered_after_the_deadline_counts_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let _server = xenstore.serve_unix(&socket).unwrap();
    xenstore.set_interceptor(Some(Box::new(|_, _, _, request| {
        if matches!(request, Request::TransactionEnd { commit: true }) {
            std::thread::sleep(Duration::from_millis(1500));
        }
    })));
    let mut client = Client::open(Endpoint::UnixSocket(socket), Options::default()).unwrap();
    ReplaceImage::new(&mut client, &templates)
        .deadline(Instant::now() + Duration::from_millis(1000))
        .replace(GUEST, &overlays())
        .unwrap();
    assert_eq!(hosts::live(&xenstore), ViewState::New);
    assert_eq!(hosts::template(&templates), ViewState::New);
}

#[test]
fn a_commit_that_is_answered_after_the_deadline_and_was_a_conflict_leaves_both_views() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let _server = xenstore.serve_unix(&socket).unwrap();
    xenstore.set_interceptor(Some(Box::new(|server, _, _, request| {
        if matches!(request, Request::TransactionEnd { commit: true }) {
            server.apply(hosts::write("/local/domain/0/backend/qdisk/7/51712/state", "2"));
            std::thread::sleep(Duration::from_millis(1500));
        }
    })));
    let mut client = Client::open(Endpoint::UnixSocket(socket), Options::default()).unwrap();
    let error = ReplaceImage::new(&mut client, &templates)
        .deadline(Instant::now() + Duration::from_millis(1000))
        .replace(GUEST, &overlays())
        .unwrap_err();
    let ReplaceError::CommitUnanswered { views, .. } = error else { panic!("{error}") };
    assert_eq!((views.live, views.template), (ViewState::Old, ViewState::Old));
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
    assert_eq!(hosts::template(&templates), ViewState::Old);
}

/// What goes wrong when a template is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing is written.
    Before,
    /// It is written, and the error comes after that.
    After,
    /// The lock is lost, and its next holder has changed something else.
    LockLost,
    /// The lock is lost, and its next holder has removed the template.
    Removed,
    /// Neither writing nor reading works any more.
    Gone,
}

/// A store whose templates cannot be written.
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
    meanwhile: Mutex<Box<dyn FnMut() + Send>>,
}

struct FaultyHeld<'s> {
    inner: Box<dyn HeldTemplate + 's>,
    store: &'s Faulty,
    gone: bool,
}

impl TemplateStore for Faulty {
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError> {
        self.inner.load(key, deadline)
    }

    fn keys(&self, deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        self.inner.keys(deadline)
    }

    fn lock<'s>(
        &'s self,
        permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 's>, LockError> {
        let inner = self.inner.lock(permit, key, deadline)?;
        Ok(Box::new(FaultyHeld { inner, store: self, gone: false }))
    }
}

impl HeldTemplate for FaultyHeld<'_> {
    fn key(&self) -> &TemplateKey {
        self.inner.key()
    }

    fn load(&self, deadline: Instant) -> Result<Option<Template>, LoadError> {
        if self.gone {
            let source = StoreFault::new("read", "no store");
            return Err(LoadError::Store { key: hosts::key(), source });
        }
        self.inner.load(deadline)
    }

    fn store(&mut self, text: &TemplateText, deadline: Instant) -> Result<Revision, WriteError> {
        let key = hosts::key();
        (self.store.meanwhile.lock().unwrap())();
        match self.store.fault {
            Fault::Before => {}
            Fault::After => drop(self.inner.store(text, deadline)?),
            Fault::LockLost => {
                let other = hosts::TEMPLATE.replace("\"ops\"", "\"others\"");
                self.inner.store(&TemplateText::new(other).unwrap(), deadline)?;
                return Err(WriteError::LockLost { key, at: "a lease".into() });
            }
            Fault::Removed => drop(self.inner.remove(deadline)?),
            Fault::Gone => self.gone = true,
        }
        Err(WriteError::Store { key, source: StoreFault::new("write", "no space left") })
    }

    fn remove(&mut self, deadline: Instant) -> Result<bool, WriteError> {
        self.inner.remove(deadline)
    }
}

/// What the error says, and the host after it.
fn unwritten(
    fault: Fault,
    meanwhile: impl FnOnce(&Embedded) -> Box<dyn FnMut() + Send>,
) -> (ViewState, ViewState, Option<UndoError>, Embedded) {
    let xenstore = hosts::xenstore();
    let meanwhile = Mutex::new(meanwhile(&xenstore));
    let templates = Faulty { inner: hosts::templates(), fault, meanwhile };
    let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
    assert_eq!(error.views().live, hosts::live(&xenstore), "{fault:?}: {error}");
    let views = error.views();
    if matches!(fault, Fault::Before | Fault::After) {
        assert_eq!(views.template, hosts::template(&templates), "{fault:?}: {error}");
    }
    let ReplaceError::TemplateNotWritten { undo, .. } = error else { panic!("{error}") };
    (views.live, views.template, undo, xenstore)
}

#[test]
fn a_template_that_is_not_written_takes_the_live_view_back() {
    use ViewState::{New, Old, Other, Unknown};
    for (fault, live, template) in [
        (Fault::Before, Old, Old),
        (Fault::After, New, New),
        // It still names the old images.
        (Fault::LockLost, Old, Old),
        (Fault::Removed, New, Other),
        (Fault::Gone, New, Unknown),
    ] {
        let (live_is, template_is, undo, _) = unwritten(fault, |_| Box::new(|| {}));
        assert_eq!((live_is, template_is), (live, template), "{fault:?}");
        assert!(undo.is_none(), "{fault:?}: {undo:?}");
    }
}

#[test]
fn what_somebody_else_has_changed_since_is_not_taken_back() {
    let (live, template, undo, xenstore) = unwritten(Fault::Before, |xenstore| {
        let xenstore = xenstore.clone();
        Box::new(move || {
            hosts::apply(&xenstore, hosts::write("/libxl/7/device/vbd/51712/params", "aio:/x"));
        })
    });
    assert_eq!((live, template), (ViewState::Other, ViewState::Old));
    assert!(matches!(undo, Some(UndoError::ChangedSince)), "{undo:?}");
    let path = "/libxl/7/device/vbd/51712/params".parse().unwrap();
    assert_eq!(xenstore.snapshot().read(&path), Some(&b"aio:/x"[..]));
}

#[test]
fn an_undo_that_meets_others_is_tried_again() {
    let (live, template, undo, _) = unwritten(Fault::Before, |xenstore| {
        let xenstore = xenstore.clone();
        Box::new(move || {
            let mut n = 0;
            xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
                if matches!(request, Request::TransactionEnd { commit: true }) && n < 3 {
                    n += 1;
                    let path = "/libxl/7/device/vbd/51712/params";
                    server.apply(hosts::write(path, "qcow2:/srv/a-1.qcow2"));
                }
            })));
        })
    });
    assert_eq!((live, template), (ViewState::Old, ViewState::Old));
    assert!(undo.is_none(), "{undo:?}");
}

/// The server is gone when the live view is to be taken back.
#[test]
fn an_undo_that_the_server_does_not_live_to_see_leaves_the_live_view_new() {
    let xenstore = hosts::xenstore();
    let cut = xenstore.clone();
    let meanwhile: Box<dyn FnMut() + Send> = Box::new(move || {
        cut.set_interceptor(Some(Box::new(|server, connection, _, _| {
            server.disconnect(connection);
        })));
    });
    let inner = hosts::templates();
    let templates = Faulty { inner, fault: Fault::Before, meanwhile: Mutex::new(meanwhile) };
    let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
    let views = error.views();
    // Nothing was sent that could have changed it back.
    assert_eq!((views.live, views.template), (ViewState::New, ViewState::Old), "{error}");
    assert_eq!(hosts::live(&xenstore), ViewState::New);
    let ReplaceError::TemplateNotWritten { undo: Some(UndoError::Xenstore(_)), .. } = error else {
        panic!("{error}");
    };
}

/// What is said of the live view is what stands there, or that it is not known, which only the commit leaves open.
#[test]
fn a_server_that_goes_before_any_request_of_the_undo_leaves_what_the_error_says() {
    let mut unknown = 0;
    // The start, four values read, four written, the commit.
    for at in 0..10 {
        let xenstore = hosts::xenstore();
        let cut = xenstore.clone();
        let meanwhile: Box<dyn FnMut() + Send> = Box::new(move || {
            let mut n = 0;
            cut.set_interceptor(Some(Box::new(move |server, connection, _, _| {
                if n == at {
                    server.disconnect(connection);
                }
                n += 1;
            })));
        });
        let inner = hosts::templates();
        let templates = Faulty { inner, fault: Fault::Before, meanwhile: Mutex::new(meanwhile) };
        let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
        let views = error.views();
        assert_eq!(views.template, ViewState::Old);
        match views.live {
            ViewState::Unknown => unknown += 1,
            live => assert_eq!(live, hosts::live(&xenstore), "before request {at}: {error}"),
        }
    }
    assert_eq!(unknown, 1);
}

/// A writer that does not heed the lock.
#[test]
fn a_template_that_changes_under_its_lock_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let templates = libxl_config::template::UserdataDir::open(directory.path()).unwrap();
    hosts::fill(&templates, hosts::TEMPLATE);
    let xenstore = hosts::xenstore();
    let name = format!("userdata-d.7.{}.libxl-json", hosts::key().uuid);
    let path = directory.path().join(name);
    let other = hosts::TEMPLATE.replace("\"ops\"", "\"others\"");
    let written = format!("{other}\0");
    xenstore.set_interceptor(Some(Box::new(move |_, _, _, request| {
        if matches!(request, Request::TransactionStart) {
            std::fs::write(&path, &written).unwrap();
        }
    })));
    let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::TemplateChanged { .. }), "{error}");
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
    assert_eq!(hosts::text(&templates), other);
}
