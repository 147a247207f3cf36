//! What a test does to a simulated host, beside what a saver does.

use std::path::PathBuf;
use std::time::Instant;

use super::connection::{self, CallError};
use super::faults::{Call, Effect};
use super::protocol::{HostView, Inspection, Reply, Request};
use super::reasons::HostFailure;
use super::spec::{DiskImage, DomainSpec};
use crate::control::{Cause, DomainIdentity, DomainView};

/// Makes domains on a simulated host, looks into them, and lets calls fail.
#[derive(Clone, Debug)]
pub struct Operator {
    socket: PathBuf,
}

/// Why the host did not do it.
#[derive(Debug, thiserror::Error)]
#[error("the simulated host did not {what}")]
#[non_exhaustive]
pub struct OperatorError {
    /// What it was to do.
    pub what: &'static str,
    /// Why it did not.
    pub source: Cause,
}

impl Operator {
    /// Of the host that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Makes a domain, **paused** before its first tick. A disk's image must exist; an empty file will do.
    ///
    /// # Errors
    ///
    /// If the spec is impossible, the name or domid is taken, or an image cannot be opened.
    pub fn create(&self, spec: DomainSpec, deadline: Instant) -> Result<DomainView, OperatorError> {
        match self.ask("create a domain", &Request::Create { spec: Box::new(spec) }, deadline)? {
            Reply::Domain(view) => Ok(view),
            _ => Err(another_answer("create a domain")),
        }
    }

    /// Looks into a domain. With `check`, compares all of its memory with what it must hold; the guest stands still meanwhile.
    ///
    /// # Errors
    ///
    /// If there is no such domain.
    pub fn inspect(
        &self,
        domain: &DomainIdentity,
        check: bool,
        deadline: Instant,
    ) -> Result<Inspection, OperatorError> {
        match self.ask(
            "look into a domain",
            &Request::Inspect { domain: *domain, check },
            deadline,
        )? {
            Reply::Inspection(inspection) => Ok(*inspection),
            _ => Err(another_answer("look into a domain")),
        }
    }

    /// Waits until the guest has done a tick, and looks into the domain then.
    ///
    /// # Errors
    ///
    /// If it has not by the deadline, or has crashed before.
    pub fn await_tick(
        &self,
        domain: &DomainIdentity,
        tick: u64,
        deadline: Instant,
    ) -> Result<Inspection, OperatorError> {
        match self.ask("await a tick", &Request::AwaitTick { domain: *domain, tick }, deadline)? {
            Reply::Inspection(inspection) => Ok(*inspection),
            _ => Err(another_answer("await a tick")),
        }
    }

    /// Has the guest write to another image from its next record on. What it wrote before must be in there.
    ///
    /// # Errors
    ///
    /// If there is no such disk, or the image cannot be opened; the disk is the old one then.
    pub fn switch_disk(
        &self,
        domain: &DomainIdentity,
        vdev: &str,
        image: DiskImage,
        deadline: Instant,
    ) -> Result<(), OperatorError> {
        let request = Request::SwitchDisk { domain: *domain, vdev: vdev.to_owned(), image };
        self.ask("switch a disk", &request, deadline).map(drop)
    }

    /// Changes one bit in a page of a domain's memory, behind its guest's back.
    ///
    /// # Errors
    ///
    /// If there is no such page.
    pub fn spoil(
        &self,
        domain: &DomainIdentity,
        pfn: u64,
        deadline: Instant,
    ) -> Result<(), OperatorError> {
        self.ask("spoil a page", &Request::Spoil { domain: *domain, pfn }, deadline).map(drop)
    }

    /// Lets the next call of that kind fail, of whatever domain; several are for several calls, in turn.
    ///
    /// # Errors
    ///
    /// If the effect cannot strike in that call.
    pub fn fail(&self, call: Call, effect: Effect, deadline: Instant) -> Result<(), OperatorError> {
        self.ask("let a call fail", &Request::Fail { call, effect }, deadline).map(drop)
    }

    /// About the host itself.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn host(&self, deadline: Instant) -> Result<HostView, OperatorError> {
        match self.ask("tell about itself", &Request::Host, deadline)? {
            Reply::Host(view) => Ok(view),
            _ => Err(another_answer("tell about itself")),
        }
    }

    /// Ends the host, and all domains with it.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn end(&self, deadline: Instant) -> Result<(), OperatorError> {
        self.ask("end", &Request::End, deadline).map(drop)
    }

    fn ask(
        &self,
        what: &'static str,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, OperatorError> {
        match connection::call(&self.socket, request, None, deadline.into()) {
            Ok(answer) => match answer.reply {
                Reply::Failed(failure) => {
                    Err(OperatorError { what, source: Box::new(HostFailure(failure)) })
                }
                reply => Ok(reply),
            },
            Err(error) => Err(OperatorError { what, source: Box::new(error) }),
        }
    }
}

fn another_answer(what: &'static str) -> OperatorError {
    OperatorError { what, source: Box::new(CallError::Reply) }
}
