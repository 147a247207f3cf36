//! The little of Xenstore that a caller without libxenstore needs: reading a node, and changing several at once.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use xsclient::{Batch, Nodes, OperationError, Path, RetryPolicy};

use crate::arguments::{absolute, empty, required, text, values};
use crate::boundary::call;
use crate::context::Ctx;
use crate::outcome::give_values;
use crate::problem::Error;
use crate::status::Status;

/// A change of one node.
#[repr(C)]
pub struct Node {
    /// Its absolute path.
    pub path: *const c_char,
    /// The value that it is to have, `length` octets; NULL to remove it with all below.
    pub value: *const u8,
    /// How many.
    pub length: usize,
}

/// Reads a node.
///
/// `*value` becomes `*length` octets, or NULL if it is empty. It is freed with free(). DK_STATUS_NOT_FOUND: there is no such node.
///
/// # Safety
///
/// `path` ends with a NUL. `value` and `length` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_xenstore_read(
    ctx: Option<&Ctx>,
    path: *const c_char,
    value: Option<&mut MaybeUninit<*mut u8>>,
    length: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_xenstore_read", error, || {
        let place = empty(value, "value")?;
        let length = required(length, "length")?.write(0);
        let ctx = required(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let path = absolute(unsafe { text(path, "path") }?)?;
        let value = ctx.read(|client| client.with_deadline(ctx.deadline()).read(&path))?;
        give_values(place, length, &value)
    })
}

/// Changes several nodes in one transaction: others see all of it or nothing, and watches fire afterwards.
///
/// The changes are made in their order. A node to be removed that is not there is no error. A conflict with somebody else's change
/// is tried again until the context's time is over: DK_STATUS_BUSY.
///
/// # Safety
///
/// `nodes` has `count` entries, whose paths end with a NUL and whose values have their lengths. `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_xenstore_change(
    ctx: Option<&Ctx>,
    nodes: *const Node,
    count: usize,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_xenstore_change", error, || {
        let ctx = required(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let nodes = unsafe { values(nodes, count, "nodes") }?;
        let mut changes: Vec<(Path, Option<&[u8]>)> = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            // SAFETY: as this function's own contract.
            let path = absolute(unsafe { text(node.path, &format!("nodes[{index}].path")) }?)?;
            let value = if node.value.is_null() && node.length == 0 {
                None
            } else {
                let name = format!("nodes[{index}].value");
                // SAFETY: as this function's own contract.
                Some(unsafe { values(node.value, node.length, &name) }?)
            };
            changes.push((path, value));
        }
        let mut client = ctx.client()?;
        let deadline = ctx.deadline();
        let mut client = client.with_deadline(deadline);
        let patient = RetryPolicy { attempts: u32::MAX, ..RetryPolicy::default() };
        client.transact(&patient, |transaction| {
            let mut batch = Batch::new();
            let mut slots = Vec::new();
            for (path, value) in &changes {
                slots.push(match value {
                    Some(value) => batch.write(path.clone(), *value),
                    None => batch.rm(path.clone()),
                });
            }
            let mut replies = transaction.run(batch)?;
            for (slot, (_, value)) in slots.into_iter().zip(&changes) {
                match replies.take(slot) {
                    Err(error) if value.is_none() && error.is_not_found() => {}
                    answer => answer.map(drop)?,
                }
            }
            Ok::<(), OperationError>(())
        })?;
        Ok(())
    })
}
